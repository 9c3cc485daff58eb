import json
import threading

import pytest

from tests.conftest import REFERENCE_DATA

from .walks import NotThere, Walks

# As the pages call it.
BUCKET = "BUCKET"


@pytest.fixture(scope="module")
def bucket_url(storage_emulator):
    """Where gs://BUCKET is; all pages share it, as they would share the bucket."""
    from tests.storage_emulator import Proxy  # which pytest has to load first, as a plugin

    proxy = Proxy(storage_emulator)
    made = json.dumps({"name": BUCKET}).encode()
    headers = {"Content-Type": "application/json"}
    assert proxy.ask("GET", "/wipe").status == 200
    assert proxy.ask("POST", "/storage/v1/b?project=test", made, headers).status == 200
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield proxy.url
    proxy.shutdown()
    proxy.server_close()
    thread.join()


@pytest.fixture(scope="module")
def walks(tmp_path_factory, bucket_url) -> Walks:
    return Walks(tmp_path_factory.mktemp("newcomer"), bucket_url, REFERENCE_DATA)


@pytest.fixture
def runs_as_written(walks):
    """Fails where a command, after all that come before it, does not do what it says."""

    def check(command):
        try:
            outcome = walks.outcome(command)
        except NotThere as reason:
            pytest.skip(str(reason))
        where = f"{command.page}:{command.line}\n{command.text}\n"
        assert outcome.code == 0, f"{where}{outcome.said}"
        assert "Traceback" not in outcome.said, f"{where}{outcome.said}"
        assert outcome.missing == (), f"{where}has not left {', '.join(outcome.missing)}"

    return check
