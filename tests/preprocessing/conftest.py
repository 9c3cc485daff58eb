import io
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from common.command import run_to_exit_code
from preprocessing.build_dataset import BEAM_OPTIONS, BuildConfig, build_dataset

ROOT = pathlib.Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "preprocessing.build_dataset"]


def encoded(format: str = "JPEG", mode: str = "RGB", size=(48, 32), seed: int = 0, **options):
    """An image file's bytes: smooth noise, so that each seed gives other bytes."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    image = Image.fromarray(noise).resize(size).convert(mode)
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def make_tree(root: pathlib.Path, folders=("cat", "dog", "fox"), per_folder=4) -> pathlib.Path:
    for index, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for number in range(per_folder):
            content = encoded(seed=100 * index + number)
            (root / folder / f"{folder}_{number}.JPEG").write_bytes(content)
    return root


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "photos")


@pytest.fixture
def command(capfd):
    """Runs the build in this process; returns its exit code and what it printed."""

    def call(*flags: object, main=build_dataset, config=BuildConfig) -> tuple[int, str]:
        capfd.readouterr()
        passthrough = BEAM_OPTIONS if main is build_dataset else ""
        argv = ["command", *map(str, flags)]
        code = run_to_exit_code(main, config, argv=argv, passthrough=passthrough)
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return code, out + err

    return call


@pytest.fixture
def build(command):
    """Builds with flags given by name; asserts success; returns the output directory."""

    def call(input_dir, output_dir, **flags) -> pathlib.Path:
        words = [f"--{name}={value}" for name, value in {"num_shards": 3, **flags}.items()]
        code, text = command(f"--source={input_dir}", f"--output_dir={output_dir}", *words)
        assert code == 0, text
        return output_dir

    return call


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
