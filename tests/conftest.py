import os
import pathlib

import pytest

# As commands set it (training.runtime), and before any test imports TensorFlow: its native notes
# are no lines of ours, and a run in a test must have the kernels, and so the bits, of a command.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# What schedulers set, and commands take defaults from, is not to come from whoever runs the tests.
for _name in list(os.environ):
    if _name in ("LOG_FORMAT", "TF_CONFIG", "CLUSTER_SPEC") or _name.startswith(
        ("AIP_", "CLOUD_ML_")
    ):
        del os.environ[_name]

BESIDE_REPOSITORY = pathlib.Path(__file__).parents[2] / "shared" / "data"
REFERENCE_DATA = pathlib.Path(os.environ.get("MOBILENET_TEST_DATA", BESIDE_REPOSITORY))


@pytest.fixture(scope="session")
def reference_data() -> pathlib.Path:
    """Directory of real photos and checkpoints, which are not part of the repository."""
    path = REFERENCE_DATA
    if not path.is_dir():
        pytest.skip(f"no reference data in {path} (MOBILENET_TEST_DATA names another place)")
    return path
