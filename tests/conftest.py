import os
import pathlib

import pytest

# As commands set it, and before any test imports TensorFlow: its native notes are no lines of ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def reference_data() -> pathlib.Path:
    """Directory of real photos and checkpoints, which are not part of the repository."""
    beside_repository = pathlib.Path(__file__).parents[2] / "shared" / "data"
    path = pathlib.Path(os.environ.get("MOBILENET_TEST_DATA", beside_repository))
    if not path.is_dir():
        pytest.skip(f"no reference data in {path} (MOBILENET_TEST_DATA names another place)")
    return path
