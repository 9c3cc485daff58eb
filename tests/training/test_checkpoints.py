import logging
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from training.checkpoints import CheckpointStore, list_checkpoints, read_weights, write_weights
from training.config import OptimizationFlags
from training.models import MobileNetV1Config
from training.state import TrainState

DATA = ".data-00000-of-00001"


def items_of(value: float, names=("Conv.kernel", "b..c/d.bias")) -> dict:
    """Variables of every kind that a run has, all derived from one number."""
    return {
        "model": {name: tf.Variable([value, value / 3]) for name in names},
        "optimizer": {"rms": {name: tf.Variable([value * 7, 1e-30]) for name in names}},
        "averages": {name: tf.Variable([value / 11, -value]) for name in names},
        "progress": {
            "step": tf.Variable(int(value), dtype=tf.int64),
            "loss": tf.Variable(value * np.pi, dtype=tf.float64),
        },
    }


def values_of(items) -> dict[str, bytes]:
    flat = {}
    for group, members in items.items():
        for name, member in members.items():
            if isinstance(member, dict):
                flat |= {f"{group}/{name}/{key}": v.numpy().tobytes() for key, v in member.items()}
            else:
                flat[f"{group}/{name}"] = member.numpy().tobytes()
    return flat


def assign(items, value: float) -> None:
    for (group, members), source in zip(items.items(), items_of(value).values(), strict=True):
        for name, member in members.items():
            pairs = member.items() if isinstance(member, dict) else [(None, member)]
            for key, variable in pairs:
                variable.assign(source[name] if key is None else source[name][key])
        del group


@pytest.fixture
def directory(tmp_path) -> pathlib.Path:
    """Three checkpoints: step 10 of value 10, 20 of 20, 30 of 30."""
    items = items_of(10.0)
    store = CheckpointStore(str(tmp_path), items)
    for step in (10, 20, 30):
        assign(items, float(step))
        assert store.save(step) == f"{tmp_path}/ckpt-{step}"
    return tmp_path


def test_the_newest_checkpoint_is_restored_to_the_bit(directory):
    items = items_of(0.0)
    assert CheckpointStore(str(directory), items).restore_newest() == f"{directory}/ckpt-30"
    assert values_of(items) == values_of(items_of(30.0))


def test_a_whole_training_state_is_restored_to_the_bit(tmp_path):
    config = MobileNetV1Config(3, (32, 32, 3), 0.25, classifier_activation=None)
    state = TrainState(config, OptimizationFlags())
    rng = np.random.default_rng(0)

    def variables(of):
        return {v.ref(): v for v in tf.nest.flatten(of.checkpoint_items())}.values()

    for variable in variables(state):
        noise = rng.normal(size=variable.shape) * 1000
        variable.assign(tf.cast(noise, variable.dtype))
    CheckpointStore(str(tmp_path), state.checkpoint_items()).save(1)
    other = TrainState(config, OptimizationFlags())
    CheckpointStore(str(tmp_path), other.checkpoint_items()).restore_newest()
    # Weights, two slots of each trainable one, averages; then step, position, seed, the rate's and
    # the loss's scale with its age, and three sums of the epoch.
    assert len(variables(state)) == 137 + 2 * 83 + 137 + 9
    for one, restored in zip(variables(state), variables(other), strict=True):
        assert np.array_equal(one.numpy(), restored.numpy())
    for one, restored in zip(state.model.weights, other.model.weights, strict=True):
        assert np.array_equal(one.numpy(), restored.numpy())


def test_nothing_to_restore_is_no_error(tmp_path):
    items = items_of(4.0)
    assert CheckpointStore(str(tmp_path / "new"), items).restore_newest() is None
    assert values_of(items) == values_of(items_of(4.0))


def test_only_the_newest_are_kept(tmp_path):
    store = CheckpointStore(str(tmp_path), items_of(1.0), keep=2)
    for step in (5, 10, 100, 1000):
        store.save(step)
    names = [os.path.basename(prefix) for prefix in list_checkpoints(str(tmp_path))]
    assert names == ["ckpt-100", "ckpt-1000"]


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "data cut in the middle": lambda data, index: cut(data, data.stat().st_size // 2),
    "data empty": lambda data, index: cut(data, 0),
    "one bit of the data": lambda data, index: flip(data, 5),
    "data missing": lambda data, index: data.unlink(),
    "index cut in the middle": lambda data, index: cut(index, index.stat().st_size // 2),
    "index empty": lambda data, index: cut(index, 0),
    "one bit of the index": lambda data, index: flip(index, 40),
    "zeros after a power cut": lambda data, index: data.write_bytes(bytes(data.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_of_a_damaged_newest_checkpoint_the_one_before_is_taken_and_it_is_named(
    directory, caplog, damage
):
    newest = f"{directory}/ckpt-30"
    damage(pathlib.Path(newest + DATA), pathlib.Path(newest + ".index"))
    items = items_of(0.0)
    store = CheckpointStore(str(directory), items)
    with caplog.at_level(logging.WARNING):
        assert store.restore_newest() == f"{directory}/ckpt-20"
    assert values_of(items) == values_of(items_of(20.0))
    (message,) = [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()]
    assert newest in message and "\n" not in message

    # And the run goes on over the damaged one, whose name it will meet again.
    assign(items, 31.0)
    store.save(30)
    again = items_of(0.0)
    assert CheckpointStore(str(directory), again).restore_newest() == newest
    assert values_of(again) == values_of(items_of(31.0))


def test_a_newest_checkpoint_without_its_index_does_not_count(directory):
    (directory / "ckpt-30.index").unlink()
    items = items_of(0.0)
    assert CheckpointStore(str(directory), items).restore_newest() == f"{directory}/ckpt-20"
    assert values_of(items) == values_of(items_of(20.0))


@pytest.mark.parametrize(
    "content", [None, b"", b"garbage {", bytes(range(256)), b'model_checkpoint_path: "gone"']
)
def test_the_state_file_is_not_needed(directory, content):
    state = directory / "checkpoint"
    if content is None:
        state.unlink()
    else:
        state.write_bytes(content)
    items = items_of(0.0)
    store = CheckpointStore(str(directory), items, keep=2)
    assert store.restore_newest() == f"{directory}/ckpt-30"
    assert values_of(items) == values_of(items_of(30.0))
    for step in (40, 50):
        store.save(step)
    names = [os.path.basename(prefix) for prefix in list_checkpoints(str(directory))]
    assert names[-2:] == ["ckpt-40", "ckpt-50"]


def test_when_none_can_be_restored_it_is_a_user_error(directory):
    for data in directory.glob(f"*{DATA}"):
        cut(data, 3)
    with pytest.raises(UserError, match=re.escape(f"none of the 3 checkpoints in {directory}")):
        CheckpointStore(str(directory), items_of(0.0)).restore_newest()


def test_a_checkpoint_of_other_variables_is_not_half_restored(directory):
    for names in (("Conv.kernel",), ("Conv.kernel", "b..c/d.bias", "new")):
        with pytest.raises(UserError, match="can be restored under these settings"):
            CheckpointStore(str(directory), items_of(0.0, names)).restore_newest()


def test_what_a_killed_process_left_unfinished_is_removed(directory):
    left = directory / "ckpt-40_temp"
    left.mkdir()
    (left / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    CheckpointStore(str(directory), items_of(0.0)).restore_newest()
    assert not left.exists()
    assert sorted(list_checkpoints(str(directory)))[-1] == f"{directory}/ckpt-30"


def test_values_are_found_by_their_names_whatever_the_order(directory):
    """Keras' own checkpoints number the layers, and a new one in between shifts the rest."""
    items = items_of(0.0)
    shuffled = {
        group: dict(reversed(members.items())) for group, members in reversed(items.items())
    }
    CheckpointStore(str(directory), shuffled).restore_newest()
    assert values_of(items) == values_of(items_of(30.0))


def test_keys_in_the_file_are_the_names_of_the_weights(directory):
    keys = dict(tf.train.list_variables(f"{directory}/ckpt-30"))
    assert "model/Conv..kernel/.ATTRIBUTES/VARIABLE_VALUE" in keys
    assert "progress/step/.ATTRIBUTES/VARIABLE_VALUE" in keys


def test_weights_come_back_by_name_from_a_file_of_weights(tmp_path):
    raw = {
        "Conv2d_1_depthwise.BatchNorm.beta": np.float32([1, 2]),
        "Logits.Conv2d_1c_1x1.bias": np.float32([3]),
    }
    averages = {name: value + 0.5 for name, value in raw.items()}
    both = write_weights(str(tmp_path / "both"), raw, averages, 7)
    alone = write_weights(str(tmp_path / "raw"), raw)
    for prefix, expected_averages, expected_step in ((both, averages, 7), (alone, {}, 0)):
        *groups, step = read_weights(prefix)
        assert step == expected_step
        for values, expected in zip(groups, (raw, expected_averages), strict=True):
            assert values.keys() == expected.keys()
            assert all(np.array_equal(values[name], expected[name]) for name in expected)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    prefix = tf.train.Checkpoint(net=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    with pytest.raises(UserError, match="holds no weights under 'model/'"):
        read_weights(prefix)
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(str(tmp_path / "none"))


def test_a_copied_directory_of_checkpoints_works_in_its_new_place(directory, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "run"
    shutil.move(directory, moved)
    items = items_of(0.0)
    store = CheckpointStore(str(moved), items, keep=2)
    assert store.restore_newest() == f"{moved}/ckpt-30"
    store.save(40)
    assert not directory.exists()
