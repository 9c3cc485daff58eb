"""Two hundred damaged checkpoints: each is one UserError, never another, and never a model."""

import collections
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from loaders.loaders import read_weights
from loaders.open import ModelRequest, tf1_config
from loaders.tf1_checkpoint import Tf1Checkpoint
from tests.loaders.conftest import TF1_CHECKPOINT
from training.models import MobileNetConfig, build_model
from training.models.mobilenet import weights_of

NUM_DAMAGED = 200
SMALL_V3 = TF1_CHECKPOINT.parents[1] / "random_v3_small_0.5_96_quant" / "model.ckpt-2790692"
DATA, INDEX = ".data-00000-of-00001", ".index"


class Victim:
    """A whole checkpoint, from which damaged ones are made.

    Attributes:
        values: its variables.
        weights: names of those that a model needs.
    """

    def __init__(self, prefix: pathlib.Path):
        self.files = {end: pathlib.Path(f"{prefix}{end}").read_bytes() for end in (DATA, INDEX)}
        reader = tf.train.load_checkpoint(str(prefix))
        self.values = {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}
        self.config = tf1_config(Tf1Checkpoint(str(prefix)), ModelRequest())
        self.model = build_model(self.config)
        stored = read_weights(Tf1Checkpoint(str(prefix)), self.model, self.config)
        self.weights = sorted(stored.mapping.raw.values())


@pytest.fixture(scope="module")
def victims() -> list[Victim]:
    return [Victim(TF1_CHECKPOINT), Victim(SMALL_V3)]


def write_files(prefix: str, files: dict[str, bytes]) -> None:
    for end, content in files.items():
        pathlib.Path(f"{prefix}{end}").write_bytes(content)


def write_values(prefix: str, values: dict[str, np.ndarray]) -> None:
    names = sorted(values)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(values[name]) for name in names],
    )


def cut(victim, rng, prefix, end):
    content = victim.files[end]
    write_files(prefix, victim.files | {end: content[: rng.integers(len(content))]})


def flip(victim, rng, prefix, end):
    content = bytearray(victim.files[end])
    for place in rng.integers(len(content), size=rng.integers(1, 4)):
        content[place] ^= rng.integers(1, 256)
    write_files(prefix, victim.files | {end: bytes(content)})


def lose_file(victim, rng, prefix):
    end = (DATA, INDEX)[rng.integers(2)]
    write_files(prefix, {other: c for other, c in victim.files.items() if other != end})


def swap_files(victim, rng, prefix):
    del rng
    write_files(prefix, {DATA: victim.files[INDEX], INDEX: victim.files[DATA]})


def changed(victim, rng, prefix, change):
    name = victim.weights[rng.integers(len(victim.weights))]
    values = dict(victim.values)
    change(values, name, rng)
    write_values(prefix, values)


def reshape(values, name, rng):
    value = values[name]
    shapes = [(*value.shape, 1), (value.size + 1,), (), (0,), (*value.shape[:-1], 3)]
    shapes = [shape for shape in shapes if shape != value.shape]
    values[name] = np.zeros(shapes[rng.integers(len(shapes))], np.float32)


def rename(values, name, rng):
    values[f"{name}{rng.integers(10)}"] = values.pop(name)


def drop(values, name, rng):
    del values[name]


def add(values, name, rng):
    values[f"{name.split('/')[0]}/extra_{rng.integers(9)}/weights"] = np.zeros(3, np.float32)


def spoil(values, name, rng):
    value = values[name].copy()
    value.flat[rng.integers(value.size)] = (np.nan, np.inf, -np.inf)[rng.integers(3)]
    values[name] = value


def retype(values, name, rng):
    kinds = (np.float64, np.int32, np.float16, bool)
    values[name] = values[name].astype(kinds[rng.integers(len(kinds))])


def to_text(values, name, rng):
    del rng
    values[name] = np.full(values[name].shape, b"weights", object)


def break_step(values, name, rng):
    wrong = (np.zeros(3, np.int64), np.int64(-5), np.float32(np.nan), np.array(b"many", object))
    values["global_step"] = wrong[rng.integers(len(wrong))]


def other_scope(values, name, rng):
    for old in list(values):
        values[old.replace("Mobilenet", "Resnet")] = values.pop(old)


DAMAGES = {
    "cut data": lambda *a: cut(*a, DATA),
    "cut index": lambda *a: cut(*a, INDEX),
    "flipped data": lambda *a: flip(*a, DATA),
    "flipped index": lambda *a: flip(*a, INDEX),
    "lost file": lose_file,
    "swapped files": swap_files,
    **{
        change.__name__: lambda *a, change=change: changed(*a, change)
        for change in (
            reshape, rename, drop, add, spoil, retype, to_text, break_step, other_scope
        )
    },
}  # fmt: skip
HARMLESS = {"flipped data", "flipped index"}  # some bytes hold nothing


def read(prefix: str, config: MobileNetConfig, model) -> dict[str, np.ndarray]:
    """As a user would: what it is of by its variables, and all its weights."""
    checkpoint = Tf1Checkpoint(prefix)
    assert tf1_config(checkpoint, ModelRequest()).name == config.name
    return read_weights(checkpoint, model, config).raw


def test_whole_checkpoints_are_read(victims):
    for victim, prefix in zip(victims, (TF1_CHECKPOINT, SMALL_V3), strict=True):
        assert len(read(str(prefix), victim.config, victim.model)) == len(victim.weights)
        assert victim.weights and len(weights_of(victim.model)) == len(victim.weights)


def test_every_damage_is_one_user_error(victims, tmp_path):
    refused, unharmed = collections.Counter(), collections.Counter()
    for number in range(NUM_DAMAGED):
        rng = np.random.default_rng(number)
        victim = victims[number % len(victims)]
        name = list(DAMAGES)[number // len(victims) % len(DAMAGES)]
        prefix = str(tmp_path / f"{number}")
        DAMAGES[name](victim, rng, prefix)
        try:
            values = read(prefix, victim.config, victim.model)
        except UserError as error:
            refused[name] += 1
            assert "\n" not in str(error), (number, name)
            assert prefix in str(error), (number, name)
        else:
            assert name in HARMLESS, (number, name)
            unharmed[name] += 1
            mapping = read_weights(Tf1Checkpoint(prefix), victim.model, victim.config).mapping
            for weight, value in values.items():
                assert np.array_equal(value, victim.values[mapping.raw[weight]]), (number, name)
        for path in tmp_path.iterdir():
            path.unlink()
    assert set(refused) == set(DAMAGES)
    assert refused.total() + unharmed.total() == NUM_DAMAGED
    assert refused.total() > 0.9 * NUM_DAMAGED
