"""Where files are written in tests, here and in a bucket, and what is written."""

import pytest

from common import files

CONTENT = bytes(range(256)) * 40
TREE = {"b.txt": b"12", "a/x": b"1", "a/y/z": b"", "a.b": b"123", "é/ü ?&#%.JPEG": b"4567"}


@pytest.fixture(params=["local", "bucket"])
def place(request, tmp_path):
    """A directory, once on this machine and once in a bucket."""
    if request.param == "local":
        return str(tmp_path / "place")
    return files.join(request.getfixturevalue("bucket"), "some", "place")


class Stop(Exception):
    pass
