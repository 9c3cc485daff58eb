"""What `test_tensorflow.py` runs in a process of its own."""

import logging
import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from common import files
from common.bucket_client import RETRY_SECONDS_VARIABLE
from common.errors import UserError
from loaders.convert import ConvertConfig, convert
from loaders.open import ModelRequest, open_checkpoint
from tests.storage_emulator import BUCKET, CUT, RESET, fail
from tests.training.conftest import TF1_CHECKPOINT, build, draw_photos
from tests.training.runs import flags_of, variables_of
from training import checkpoints
from training.checkpoints import CheckpointStore, list_checkpoints, write_weights
from training.config import AugmentationFlags, DataFlags
from training.preview import PreviewFlags, preview
from training.train import train

VALUES = np.arange(30_000, dtype=np.float32)


@pytest.fixture
def place(request) -> str:
    """A name in the bucket for this test alone."""
    return f"gs://{BUCKET}/{re.sub(r'[^a-z0-9]+', '-', request.node.name)}"


@pytest.fixture(autouse=True)
def no_more_faults():
    yield
    fail(None)


def items_of(value: float) -> dict:
    return {"model": {"a/b.kernel": tf.Variable(VALUES * value)}, "step": tf.Variable(value)}


def store_with(place: str, *steps: int) -> None:
    items = items_of(0.0)
    store = CheckpointStore(place, items, keep=5)
    for step in steps:
        items["model"]["a/b.kernel"].assign(VALUES * step)
        items["step"].assign(step)
        assert store.save(step) == f"{place}/ckpt-{step}"


def restored(place: str) -> tuple[str | None, dict]:
    items = items_of(-1.0)
    prefix = CheckpointStore(place, items).restore_newest()
    assert np.array_equal(items["model"]["a/b.kernel"].numpy(), VALUES * items["step"].numpy())
    return prefix, items


@pytest.mark.parametrize("fault", [None, 503, 429, RESET, CUT])
def test_checkpoints_come_back_to_the_bit_whatever_the_network_does(place, fault):
    fail(fault, every=4)
    store_with(place, 9, 10)
    prefix, items = restored(place)
    assert prefix == f"{place}/ckpt-10" and items["step"].numpy() == 10.0


def test_what_a_killed_process_left_is_removed_and_no_checkpoint(place):
    store_with(place, 1)
    for name in ("ckpt-2_temp/part-00000-of-00001.data-00000-of-00001", "ckpt-2_temp/"):
        files.write_bytes(files.join(place, name), b"half")
    files.write_bytes(files.join(place, "ckpt-2.data-00000-of-00001"), b"its index never came")
    assert list_checkpoints(place) == [f"{place}/ckpt-1"]
    assert restored(place)[0] == f"{place}/ckpt-1"
    assert files.find(place, "*_temp*") == []


def test_of_a_damaged_newest_checkpoint_the_one_before_is_taken(place, caplog):
    store_with(place, 1, 2, 3)
    data = files.join(place, "ckpt-3.data-00000-of-00001")
    files.write_bytes(data, files.read_bytes(data)[:-7])
    files.write_bytes(files.join(place, "ckpt-2.index"), b"")
    files.write_bytes(files.join(place, "checkpoint"), b"")
    with caplog.at_level(logging.WARNING):
        assert restored(place)[0] == f"{place}/ckpt-1"
    passed_over = [r.getMessage() for r in caplog.records if "is passed over" in r.getMessage()]
    assert [message.split()[1] for message in passed_over] == [
        f"{place}/ckpt-3",
        f"{place}/ckpt-2",
    ]


def test_a_bucket_that_does_not_answer_is_no_damaged_checkpoint(place, monkeypatch):
    """An older checkpoint must not be taken only because the newest cannot be fetched."""
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "1")
    store_with(place, 1, 2)
    items = items_of(-1.0)
    store = CheckpointStore(place, items, writes=False)
    monkeypatch.setattr(
        checkpoints, "list_checkpoints", lambda _: [f"{place}/ckpt-{n}" for n in (1, 2)]
    )
    fail(503, every=1)
    with pytest.raises(UserError, match=f"{place} cannot be reached: .*503"):
        store.restore_newest()
    with pytest.raises(UserError, match=f"{place}/best is out of reach"):
        write_weights(f"{place}/best", {"a": VALUES})
    monkeypatch.undo()
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "1")
    with pytest.raises(UserError, match=f"{place} cannot be reached"):
        store_with(place, 3)
    fail(None)
    assert restored(place)[0] == f"{place}/ckpt-2"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("drawn")
    return build(draw_photos(root / "photos", per_class=8), root / "data", num_shards=2)


CHANGES = {
    "optimization": {"epochs": 2, "batch_size": 8},
    "run": {"log_examples": True, "histograms": True, "checkpoint_every_steps": 2},
}


def test_a_run_in_a_bucket_is_that_of_local_files(place, data, tmp_path):
    with files.atomic_directory(files.join(place, "data")) as directory:
        for name, _ in files.list_tree(data):
            os.makedirs(os.path.dirname(os.path.join(directory, name)), exist_ok=True)
            os.link(os.path.join(data, name), os.path.join(directory, name))
    local, remote = str(tmp_path / "run"), files.join(place, "run")
    start = {"run": {**CHANGES["run"], "init_checkpoint": str(TF1_CHECKPOINT)}}
    train(*flags_of(data, local, **{**CHANGES, **start}))
    converted = files.join(place, "converted")
    convert(ConvertConfig(converted, checkpoint_path=str(TF1_CHECKPOINT), weights="raw"))
    start["run"]["init_checkpoint"] = converted
    fail(503, every=9)
    train(*flags_of(files.join(place, "data"), remote, **{**CHANGES, **start}))
    fail(None)
    for name in ("checkpoints/ckpt-4", "best"):
        ours, theirs = (
            variables_of(tf.train.latest_checkpoint(files.join(run, name)) or f"{run}/{name}")
            for run in (remote, local)
        )
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    rows, expected = (
        [
            {k: v for k, v in row.items() if k not in ("images_per_second", "waits_for_input")}
            for row in files.read_json(files.join(run, "history.json"))["epochs"]
        ]
        for run in (remote, local)
    )
    assert rows == expected and len(rows) == 2
    logs, their_logs = (_scalars(files.join(run, "logs")) for run in (remote, local))
    assert logs == their_logs and len(logs) > 4
    names = [name for name, _ in files.list_tree(remote)]
    assert {"config.json", "model.json", "best/model.json"} <= set(names)
    assert not [name for name in names if "temp" in name]
    told = b"".join(
        files.read_bytes(files.join(remote, name)) for name in names if name.startswith("examples/")
    )
    assert told == (tmp_path / "run/examples/worker-00000.jsonl").read_bytes()
    # A second start finds it finished, and one with other settings is refused.
    train(*flags_of(files.join(place, "data"), remote, **{**CHANGES, **start}))
    other = {**CHANGES, "run": {**start["run"], "seed": 5}}
    with pytest.raises(UserError, match=f"{remote} holds a run with other settings"):
        train(*flags_of(files.join(place, "data"), remote, **other))

    pictures = [files.join(where, "preview.png") for where in (place, str(tmp_path))]
    for picture, data_dir in zip(pictures, (files.join(place, "data"), data), strict=True):
        preview(PreviewFlags(picture, resolution=32), DataFlags(data_dir), AugmentationFlags())
    assert files.read_bytes(pictures[0]) == files.read_bytes(pictures[1])


def _scalars(directory: str) -> dict[tuple[str, int], float]:
    """Loss by name and step, as TensorBoard would read it."""
    found = {}
    for name in files.find(directory, "events*"):
        for record in tf.data.TFRecordDataset(files.join(directory, name)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if "loss" in value.tag:
                    found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return found


def test_checkpoints_are_converted_in_a_bucket_there_and_back(place, tmp_path):
    source = files.join(place, "tf1")
    with files.atomic_directory(source) as directory:
        for path in pathlib.Path(TF1_CHECKPOINT).parent.glob(f"{TF1_CHECKPOINT.name}.*"):
            (pathlib.Path(directory) / path.name).write_bytes(path.read_bytes())
    to, back = files.join(place, "tf2"), files.join(place, "back")
    fail(RESET, every=7)
    convert(ConvertConfig(to, checkpoint_path=source))
    convert(ConvertConfig(back, checkpoint_path=to, to="tf1"))
    fail(None)
    local = str(tmp_path / "tf2")
    convert(ConvertConfig(local, checkpoint_path=str(TF1_CHECKPOINT)))
    expected = open_checkpoint(local, ModelRequest()).values
    for path in (to, files.join(to, "ckpt-2345"), source, back):
        values = open_checkpoint(path, ModelRequest()).values
        assert values.keys() == expected.keys()
        assert all(np.array_equal(values[name], expected[name]) for name in values), path
    files.write_bytes(files.join(place, "other", "note"), b"1")
    with pytest.raises(UserError, match="other is a file, or holds files that are no converted"):
        convert(ConvertConfig(files.join(place, "other"), checkpoint_path=source))
    with pytest.raises(UserError, match=f"there is no checkpoint {place}/none"):
        open_checkpoint(files.join(place, "none"), ModelRequest())
