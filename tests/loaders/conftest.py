import pathlib
import shutil

import numpy as np
import pytest

TF1_CHECKPOINT = (
    pathlib.Path(__file__).parents[1] / "data" / "random_v1_0.25_128_quant" / "model.ckpt-2345"
)


@pytest.fixture
def tf1_copy(tmp_path):
    """A copy of the random checkpoint, to be damaged: its prefix."""
    directory = tmp_path / "tf1"
    shutil.copytree(TF1_CHECKPOINT.parent, directory)
    return directory / TF1_CHECKPOINT.name


@pytest.fixture(scope="session")
def tf1_reference():
    return np.load(TF1_CHECKPOINT.parent / "reference.npz")
