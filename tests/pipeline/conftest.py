import dataclasses
import io
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from common.command import run_to_exit_code
from pipeline.evaluate import EvaluateConfig, evaluate
from pipeline.export import ExportConfig, export
from pipeline.formats.int8 import Int8Flags
from pipeline.parity import ParityFlags
from pipeline.report import ReportConfig, write_report
from pipeline.run import RunConfig, run_line
from preprocessing.build_dataset import BuildConfig, build_dataset
from preprocessing.verify import VerifyConfig, verify
from training.config import FLAG_GROUPS
from training.train import train

# As commands set it; here the test that runs first may import TensorFlow before any command.

ROOT = pathlib.Path(__file__).parents[2]
CLASSES = ("cat", "dog", "fox")

COMMANDS = {
    "build": (build_dataset, BuildConfig),
    "verify": (verify, VerifyConfig),
    "train": (train, *FLAG_GROUPS),
    "evaluate": (evaluate, EvaluateConfig),
    "export": (export, ExportConfig, ParityFlags, Int8Flags),
    "report": (write_report, ReportConfig),
    "run": (run_line, RunConfig),
}

TINY = {
    "width_multiplier": 0.25,
    "resolution": 32,
    "batch_norm_decay": 0.95,  # with a lower one, variances of 4 tiny photos blow up any rounding
    "augmentation": "none",
    "batch_size": 4,
    "epochs": 2,
    "optimizer_name": "momentum",
    "lr": 0.02,
    "ma_decay_rate": 0.9,
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def start(name: str, **flags: object) -> int:
    """Runs a command in this process and returns its exit code."""
    words = [f"--{flag}={value}" for flag, value in flags.items()]
    return run_to_exit_code(*COMMANDS[name], argv=["command", *words])


@pytest.fixture
def command(capfd):
    """Runs a command in this process; returns its exit code and what it printed."""

    def call(name: str, **flags: object) -> Outcome:
        capfd.readouterr()
        code = start(name, **flags)
        sys.stdout.flush()
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture
def succeed(command):
    """As `command`, for a run that must succeed; returns what it printed."""

    def call(name: str, **flags: object) -> str:
        outcome = command(name, **flags)
        assert outcome.code == 0, outcome.err
        return outcome.out

    return call


def draw_photo(class_index: int, seed: tuple[int, ...]) -> bytes:
    """A JPEG whose strongest colour tells its class."""
    pixels = np.random.default_rng([class_index, *seed]).integers(0, 256, (6, 6, 3), np.uint8)
    pixels[..., class_index] = np.maximum(pixels[..., class_index], 200)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((48, 40)).save(buffer, "JPEG")
    return buffer.getvalue()


def draw_folders(directory: pathlib.Path, per_class: int, split: int = 0) -> None:
    for class_index, name in enumerate(CLASSES):
        (directory / name).mkdir(parents=True)
        for number in range(per_class):
            content = draw_photo(class_index, (split, number))
            (directory / name / f"{name}_{number}.JPEG").write_bytes(content)


def draw_splits(directory: pathlib.Path) -> pathlib.Path:
    draw_folders(directory / "train", 16, 0)
    draw_folders(directory / "validation", 8, 1)
    return directory


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> pathlib.Path:
    """Drawn photos of three classes, in train/ and validation/."""
    return draw_splits(tmp_path_factory.mktemp("drawn") / "photos")


@pytest.fixture(scope="session")
def data_dir(photos) -> pathlib.Path:
    """Shards of `photos`; not to be changed."""
    directory = photos.parent / "data"
    for split in ("train", "validation"):
        code = start(
            "build", source=photos / split, output_dir=directory, split=split, num_shards=3
        )
        assert code == 0
    return directory


@pytest.fixture(scope="session")
def model_dir(data_dir) -> pathlib.Path:
    """A model trained for two epochs; not to be changed."""
    directory = data_dir.parent / "model"
    assert start("train", data_dir=data_dir, model_dir=directory, **TINY) == 0
    return directory


@pytest.fixture(scope="session")
def learnt_model_dir(data_dir) -> pathlib.Path:
    """A model that is sure of its answers; not to be changed.

    Larger batches keep rounding small, the processor's own and that of 8-bit arithmetic.
    """
    directory = data_dir.parent / "learnt_model"
    flags = {"epochs": 12, "batch_size": 16, "lr": 0.05, "batch_norm_decay": 0.9}
    assert start("train", data_dir=data_dir, model_dir=directory, **{**TINY, **flags}) == 0
    return directory


@pytest.fixture(scope="session")
def good_export(data_dir, model_dir) -> pathlib.Path:
    """An export of that model; not to be changed."""
    directory = data_dir.parent / "export"
    code = start("export", checkpoint_path=model_dir, data_dir=data_dir, export_dir=directory)
    assert code == 0
    return directory


@pytest.fixture(scope="session")
def real_data(reference_data, tmp_path_factory) -> pathlib.Path:
    """The 500 real photos as the split 'validation'."""
    directory = tmp_path_factory.mktemp("real")
    code = start(
        "build",
        source=reference_data / "imagenet_sample",
        output_dir=directory,
        split="validation",
        num_shards=8,
    )
    assert code == 0
    return directory


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def weights_in(prefix: str, group: str) -> dict[str, np.ndarray]:
    """Weights of a checkpoint under `group` by name, by TensorFlow's reader alone."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    return {
        key.removeprefix(f"{group}/")
        .removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
        .replace("..", "."): reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if key.startswith(f"{group}/")
    }
