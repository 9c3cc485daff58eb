import os

import pytest

from .googleapis import googleapis


@pytest.fixture
def environment(storage_proxy, tmp_path) -> dict[str, str]:
    """Of a process whose clients, TensorFlow's own among them, all find the emulator."""
    with googleapis(storage_proxy.server_address[1], str(tmp_path)) as variables:
        # A state of its own for what is kept between runs.
        yield {**os.environ, **variables, "XDG_CACHE_HOME": str(tmp_path / "cache")}
