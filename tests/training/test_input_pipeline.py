import dataclasses
import itertools
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from tests.training.conftest import NUM_DRAWN
from training.config import AugmentationFlags
from training.input_pipeline import (
    TrainingInput,
    evaluation_batches,
    padded_evaluation_batches,
    training_batches,
)
from training.order import epoch_order
from training.randomness import example_keys
from training.shard_errors import named_shard_errors
from training.shards import Shards

OPTIONS = TrainingInput(batch_size=4, size=(24, 20), seed=7, num_streams=8, shuffle_window=4)


@pytest.fixture(scope="module")
def shards(drawn_data) -> Shards:
    return Shards.open(drawn_data, "train")


def take(shards, position, count, options=OPTIONS) -> dict[str, np.ndarray]:
    """The next `count` examples from `position` on."""
    batches = list(training_batches(shards, options, position).take(-(-count // 4)))
    return {
        key: np.concatenate([batch[key].numpy() for batch in batches])[:count] for key in batches[0]
    }


@pytest.fixture(scope="module")
def from_zero(shards):
    return take(shards, 0, 3 * NUM_DRAWN)


def test_every_epoch_holds_each_example_once_in_an_order_of_its_own(from_zero):
    epochs = from_zero["example"].reshape(3, NUM_DRAWN)
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM_DRAWN))
    for one, other in itertools.combinations(epochs, 2):
        assert np.mean(one == other) < 0.5


@pytest.mark.parametrize("position", [1, 4, 8, 13, 39, 40, 41, 79, 80, 100])
def test_what_comes_from_a_position_on_is_the_tail_of_what_comes_from_the_start(
    shards, from_zero, position
):
    """Bit for bit: examples, crops and draws; across the ends of epochs and of batches."""
    rest = take(shards, position, 20)
    for key, values in rest.items():
        assert np.array_equal(values, from_zero[key][position : position + 20]), key


def test_a_position_far_into_the_run_costs_no_reading_of_what_lies_before(shards):
    far = take(shards, 10**9 * NUM_DRAWN, NUM_DRAWN)
    assert sorted(far["example"]) == list(range(NUM_DRAWN))


def test_the_examples_come_in_the_order_that_is_worked_out_beforehand(shards, from_zero):
    orders = [epoch_order(shards.sizes, 8, 4, 7, epoch) for epoch in range(3)]
    assert np.array_equal(from_zero["example"], np.concatenate(orders))
    for epoch, examples in enumerate(orders):
        keys = from_zero["key"][epoch * NUM_DRAWN : (epoch + 1) * NUM_DRAWN]
        assert np.array_equal(keys, example_keys(7, epoch, examples))


def test_seeds_have_orders_and_crops_of_their_own(shards, from_zero):
    other = take(shards, 0, NUM_DRAWN, dataclasses.replace(OPTIONS, seed=8))
    assert not np.array_equal(other["example"], from_zero["example"][:NUM_DRAWN])
    ours = dict(zip(from_zero["example"][:NUM_DRAWN], from_zero["images"], strict=False))
    assert not any(
        np.array_equal(ours[example], image)
        for example, image in zip(other["example"], other["images"], strict=True)
    )


@pytest.mark.parametrize("position", [0, 13, 32])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 8])
def test_global_batches_do_not_depend_on_the_number_of_workers(
    shards, from_zero, num_workers, position
):
    """The same examples in every global batch, decoded to the same bits, in the same pairs."""
    batch, num_batches = 2 * 3 * 8, 2
    options = dataclasses.replace(OPTIONS, batch_size=batch)
    share = batch // num_workers
    streams = [
        iter(training_batches(shards, options, position, worker, num_workers))
        for worker in range(num_workers)
    ]
    for number in range(num_batches):
        parts = [next(stream) for stream in streams]
        assert all(len(part["example"]) == share for part in parts)
        # Pairs are dealt to the workers in turn.
        pairs = [part["images"].numpy().reshape(share // 2, 2, -1) for part in parts]
        dealt = np.stack(pairs, axis=1).reshape(batch, -1)
        start = position + number * batch
        expected = from_zero["images"][start : start + batch].reshape(-1, dealt.shape[1])
        assert np.array_equal(dealt[: len(expected)], expected)


def test_replicas_of_a_worker_get_elements_in_turn(shards, from_zero):
    options = dataclasses.replace(OPTIONS, batch_size=8)
    batches = training_batches(shards, options, 0, replica_batch=2).take(4)
    examples = [batch["example"].numpy().tolist() for batch in batches]
    assert list(itertools.chain(*examples)) == from_zero["example"][:8].tolist()
    assert [len(part) for part in examples] == [2] * 4


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_evaluation_on_several_workers_counts_each_example_once_in_equal_steps(shards, num_workers):
    seen, steps = [], set()
    for worker in range(num_workers):
        batches, num_steps = padded_evaluation_batches(
            shards, 3, 2, (24, 20), (-1.0, 1.0), worker=worker, num_workers=num_workers
        )
        batches = list(batches.take(2 * num_steps))
        steps.add(num_steps)
        assert all(batch["images"].shape == (3, 24, 20, 3) for batch in batches)
        indices = np.concatenate([batch["class_index"] for batch in batches])
        images = np.concatenate([batch["images"] for batch in batches])
        seen += [image.tobytes() for image, i in zip(images, indices, strict=True) if i >= 0]
        assert np.all(images[indices < 0] == -1.0)
    assert len(steps) == 1
    whole = np.concatenate([b["images"] for b in evaluation_batches(shards, 9, (24, 20), (-1, 1))])
    assert sorted(seen) == sorted(image.tobytes() for image in whole)


def test_a_neighbour_takes_the_place_of_a_record_that_is_passed_over(shards, from_zero):
    bad = int(from_zero["example"][5])
    options = dataclasses.replace(OPTIONS, passed_over=frozenset([bad]))
    ours = take(shards, 0, NUM_DRAWN, options)
    assert bad not in ours["example"]
    places = np.flatnonzero(ours["example"] != from_zero["example"][:NUM_DRAWN])
    assert places.tolist() == [5]
    assert np.array_equal(
        np.delete(ours["images"], 5, 0), np.delete(from_zero["images"][:NUM_DRAWN], 5, 0)
    )


def test_labels_belong_to_their_examples(shards, from_zero):
    """The class is the colour: blue is class 0, red class 1."""
    whole_photo = AugmentationFlags(augmentation="none")
    whole = take(shards, 0, NUM_DRAWN, dataclasses.replace(OPTIONS, augmentation=whole_photo))
    red_minus_blue = np.mean(whole["images"].astype(float), axis=(1, 2))[:, ::2] @ [1, -1]
    assert np.array_equal(whole["class_index"], red_minus_blue > 0)
    classes = dict(zip(whole["example"], whole["class_index"], strict=True))
    assert all(
        classes[example] == index
        for example, index in zip(from_zero["example"], from_zero["class_index"], strict=True)
    )


def test_evaluation_reads_every_example_once_and_the_last_batch_is_smaller(shards):
    batches = list(evaluation_batches(shards, 16, (24, 20), (-1.0, 1.0)))
    assert [len(batch["images"]) for batch in batches] == [16, 16, 8]
    names = [name for batch in batches for name in batch["file_name"].numpy()]
    assert len(set(names)) == NUM_DRAWN
    images = np.concatenate([batch["images"] for batch in batches])
    assert images.shape == (NUM_DRAWN, 24, 20, 3) and images.dtype == np.float32
    assert -1 <= images.min() < -0.5 and 0.5 < images.max() <= 1


def test_records_are_those_that_tensorflow_reads(shards):
    for number, path in enumerate(shards.paths):
        theirs = [record.numpy() for record in tf.data.TFRecordDataset(path)]
        assert shards.sizes[number] == len(theirs)
        assert shards.read(number, 0, len(theirs)) == theirs
        assert shards.read(number, 2, 3) == theirs[2:5]


@pytest.fixture
def damaged(drawn_data, tmp_path):
    """The data set with one bit flipped in record 3 of shard 1: shards, path."""
    shutil.copytree(drawn_data, tmp_path / "data")
    shards = Shards.open(str(tmp_path / "data"), "train")
    path = pathlib.Path(shards.paths[1])
    content = bytearray(path.read_bytes())
    content[int(shards.bounds[1][3]) + 100] ^= 1
    path.write_bytes(content)
    return shards, path


def test_a_damaged_record_is_named_with_its_shard(damaged):
    shards, path = damaged
    with pytest.raises(UserError, match=f"record 3 of shard {path}"):
        shards.read(1, 0, 5)
    with pytest.raises(UserError, match=f"record 3 of shard {path}"), named_shard_errors(None):
        take(shards, 0, NUM_DRAWN)
    with pytest.raises(UserError, match=f"record 3 of shard {path}"), named_shard_errors(shards):
        list(evaluation_batches(shards, 16, (24, 20), (-1.0, 1.0)))
    path.unlink()
    with pytest.raises(UserError, match=f"shard {path} cannot be read"), named_shard_errors(None):
        take(shards, 0, NUM_DRAWN)
    with pytest.raises(UserError, match=str(path)), named_shard_errors(shards):
        list(evaluation_batches(shards, 16, (24, 20), (-1.0, 1.0)))


def test_a_shard_that_was_cut_is_named(damaged):
    shards, path = damaged
    path.write_bytes(path.read_bytes()[: int(shards.bounds[1][2]) + 50])
    with pytest.raises(UserError, match=f"record 2 of shard {path}"):
        shards.read(1, 0, shards.sizes[1])


def test_a_split_that_is_not_there_is_a_user_error(drawn_data):
    with pytest.raises(UserError, match="no finished split 'test'"):
        Shards.open(drawn_data, "test")
