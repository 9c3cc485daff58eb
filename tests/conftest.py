import os
import pathlib

import pytest

# As commands set it, and before any test imports TensorFlow: its native notes are no lines of ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


BESIDE_REPOSITORY = pathlib.Path(__file__).parents[2] / "shared" / "data"
REFERENCE_DATA = pathlib.Path(os.environ.get("MOBILENET_TEST_DATA", BESIDE_REPOSITORY))


@pytest.fixture(scope="session")
def reference_data() -> pathlib.Path:
    """Directory of real photos and checkpoints, which are not part of the repository."""
    path = REFERENCE_DATA
    if not path.is_dir():
        pytest.skip(f"no reference data in {path} (MOBILENET_TEST_DATA names another place)")
    return path
