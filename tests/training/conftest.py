import pathlib

import numpy as np
import pytest
from PIL import Image

from preprocessing.build_dataset import BuildConfig, build_dataset

TF1_CHECKPOINT = (
    pathlib.Path(__file__).parents[1] / "data" / "random_v1_0.25_128_quant" / "model.ckpt-2345"
)
COLOURS = {"blue": (40, 50, 210), "red": (210, 50, 40)}
NUM_DRAWN = 40


def draw_photos(root: pathlib.Path, per_class: int = NUM_DRAWN // len(COLOURS)) -> pathlib.Path:
    """Class folders of small JPEGs: coarse noise in the colour of the class."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            rng = np.random.default_rng([number, *colour])
            pixels = np.clip(colour + rng.normal(0, 45, (6, 8, 3)), 0, 255).astype(np.uint8)
            size = (40 + number % 7, 36 + number % 5)
            image = Image.fromarray(pixels).resize(size)
            image.save(root / name / f"{name}_{number}.JPEG", quality=90)
    return root


def build(input_dir, output_dir, **flags) -> str:
    build_dataset(BuildConfig(str(input_dir), str(output_dir), **flags))
    return str(output_dir)


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory) -> str:
    """A data set of 40 examples of 2 classes in 3 shards."""
    root = tmp_path_factory.mktemp("drawn")
    return build(draw_photos(root / "photos"), root / "data", num_shards=3)


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory, reference_data) -> str:
    """The 500 reference photos as a data set of 1,000 classes."""
    root = tmp_path_factory.mktemp("sample")
    return build(reference_data / "imagenet_sample", root / "data", num_shards=4)


@pytest.fixture(scope="session")
def finished(drawn_data, tmp_path_factory) -> pathlib.Path:
    """Directory of a run that nothing disturbed."""
    from tests.training.runs import flags_of
    from training.train import train

    model_dir = tmp_path_factory.mktemp("finished") / "run"
    train(*flags_of(drawn_data, model_dir))
    return model_dir
