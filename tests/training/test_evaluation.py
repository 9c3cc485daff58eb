"""The table of outcomes: every example once, by any batch and on any replicas."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from training import evaluation
from training.evaluation import Evaluator, Outcomes, Reading, score_batch
from training.models import check_input_range
from training.strategies import Devices

NUM_CLASSES = 7


@dataclasses.dataclass(frozen=True)
class Split:
    """What the evaluator asks of shards; images hold the number of their example."""

    classes: np.ndarray
    num_examples: int
    first_example: int = 0
    name: str = "validation"

    def part(self, start: int, stop: int, name: str) -> "Split":
        assert 0 <= start < stop <= self.num_examples
        return Split(self.classes[start:stop], stop - start, self.first_example + start, self.name)

    def batches(self, batch: int) -> tf.data.Dataset:
        numbers = self.first_example + np.arange(len(self.classes))
        images = np.ones([len(numbers), 2, 2, 3], np.float32)
        images *= numbers[:, None, None, None]
        values = {"images": images, "class_index": np.asarray(self.classes, np.int64)}
        return tf.data.Dataset.from_tensor_slices(values).batch(batch)


@pytest.fixture
def count(monkeypatch):
    """Evaluates a model that gives example i the i-th row of `logits`."""
    monkeypatch.setattr(
        evaluation, "evaluation_batches", lambda split, batch, *_: split.batches(batch)
    )

    def call(
        logits, classes, batch_size=4, offset=0, num_examples=None, in_graph=True, **part
    ) -> Outcomes:
        logits = tf.constant(np.asarray(logits, np.float32))

        def predict(images):
            return tf.gather(logits, tf.cast(images[:, 0, 0, 0], tf.int32))

        split = Split(np.asarray(classes), num_examples or len(classes), **part)
        devices = Devices(tf.distribute.get_strategy())
        reading = Reading((2, 2), label_offset=offset)
        return Evaluator(predict, reading, devices, in_graph).run(split, batch_size)

    return call


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, NUM_CLASSES)), rng.integers(0, NUM_CLASSES, 50)


@pytest.mark.parametrize(
    ("batch_size", "in_graph"),
    [(1, True), (8, True), (49, True), (50, True), (64, True), (8, False), (64, False)],
)
def test_counts_do_not_depend_on_the_batch_size_and_include_the_last_partial_batch(
    scores, count, batch_size, in_graph
):
    logits, classes = scores
    result = count(logits, classes, batch_size, in_graph=in_graph)
    assert result.example.tolist() == list(range(50))
    assert result.class_index.tolist() == classes.tolist()
    assert result.predicted.tolist() == logits.argmax(axis=1).tolist()
    for number, k in ((result.num_correct_top_1, 1), (result.num_correct_top_5, 5)):
        in_top_k = tf.math.in_top_k(classes, tf.constant(logits, tf.float32), k)
        assert number == np.count_nonzero(in_top_k)
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert result.probability == pytest.approx(probabilities.max(axis=1), rel=1e-5)
    expected = -np.log(probabilities[np.arange(50), classes])
    assert result.loss == pytest.approx(expected, rel=1e-4)
    assert result.mean_loss == pytest.approx(expected.mean(), rel=1e-5)
    assert (result.top_1, result.top_5) == (
        result.num_correct_top_1 / 50,
        result.num_correct_top_5 / 50,
    )


def test_a_part_keeps_the_numbers_of_the_whole_split(scores, count):
    logits, classes = scores
    part = count(logits, classes[20:], first_example=20)
    whole = count(logits, classes)
    assert part.example.tolist() == list(range(20, 50))
    assert part.rank.tolist() == whole.rank[20:].tolist()


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A worker whose fellows' tables are at hand when sums are asked for."""

    num_workers: int
    worker: int
    tables: list
    strategy = tf.distribute.get_strategy()

    @property
    def num_replicas(self) -> int:
        return self.num_workers

    def total(self, values):
        self.tables.append(np.array(values))
        return functools.reduce(np.add, self.tables).tolist()


@pytest.mark.parametrize("num_examples", [50, 7, 2])
@pytest.mark.parametrize("num_workers", [2, 3, 8])
def test_workers_share_the_examples_without_a_gap_or_one_twice(
    scores, count, num_workers, num_examples
):
    logits, classes = scores[0], scores[1][:num_examples]
    alone, tables = count(logits, classes), []

    def predict(images):
        return tf.gather(tf.constant(logits, tf.float32), tf.cast(images[:, 0, 0, 0], tf.int32))

    for worker in range(num_workers):
        devices = OneOf(num_workers, worker, tables)
        split = Split(classes, num_examples)
        try:
            last = Evaluator(predict, Reading((2, 2)), devices).run(split, 4)
        except UserError:  # the sums of those before are not whole yet
            assert worker < num_workers - 1
    for field in dataclasses.fields(Outcomes):
        assert np.array_equal(getattr(last, field.name), getattr(alone, field.name)), field.name


def test_workers_that_read_the_same_examples_are_found_out(scores, count):
    logits, classes = scores
    tables = []

    def predict(images):
        return tf.gather(tf.constant(logits, tf.float32), tf.cast(images[:, 0, 0, 0], tf.int32))

    evaluator = Evaluator(predict, Reading((2, 2)), OneOf(2, 0, tables))
    with pytest.raises(UserError, match="disagree"):
        evaluator.run(Split(classes, 50), 4)
    with pytest.raises(UserError, match="disagree"):
        evaluator.run(Split(classes, 50), 4)


def test_the_label_of_a_class_is_behind_the_background_where_there_is_one(scores, count):
    logits, classes = scores
    with_background = np.concatenate([np.full([50, 1], -9.0), logits], axis=1)
    one, other = count(logits, classes), count(with_background, classes, offset=1)
    assert one.rank.tolist() == other.rank.tolist()
    assert other.predicted.tolist() == [output + 1 for output in one.predicted]


def test_places_without_an_example_are_marked():
    rows = score_batch(tf.zeros([3, 4]), tf.constant([2, -1, 0], tf.int64), 1).numpy()
    assert rows[:, 0].tolist() == [2, -1, 0]


def test_of_equal_logits_the_first_is_before_the_others(count):
    """As in tf.math.top_k: a model that says nothing is right as often as chance."""
    classes = np.arange(NUM_CLASSES)
    result = count(np.zeros([NUM_CLASSES, NUM_CLASSES]), classes)
    assert (result.num_correct_top_1, result.num_correct_top_5) == (1, 5)

    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 3, (60, NUM_CLASSES)).astype(np.float32)
    classes = rng.integers(0, NUM_CLASSES, 60)
    result = count(coarse, classes)
    top = tf.math.top_k(coarse, 5).indices.numpy()
    assert result.num_correct_top_1 == np.count_nonzero(top[:, 0] == classes)
    assert result.num_correct_top_5 == np.count_nonzero(np.any(top == classes[:, None], axis=1))


@pytest.mark.parametrize("bad", [[np.nan] * 7, [np.nan] + [5.0] * 6, [1.0] * 6 + [np.nan]])
def test_logits_that_are_no_numbers_are_wrong_and_have_no_probability(bad, count):
    for index in (0, 6):
        if np.isnan(bad[index]):
            result = count([bad, [9, 0, 0, 0, 0, 0, 0]], [index, 0])
            assert (result.num_correct_top_1, result.num_correct_top_5) == (1, 1)
            assert result.probability[0] == 0


def test_another_number_of_examples_than_the_split_holds_is_an_error(scores, count):
    with pytest.raises(UserError, match=r"50 examples were read of split 'validation'.*hold 51"):
        count(*scores, num_examples=51)


def photos(low, high):
    values = np.random.default_rng(0).uniform(low, high, (8, 4, 4, 3))
    values[0, 0, 0] = (low, high, low)
    return values


RANGES = {(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)}


@pytest.mark.parametrize("expected", sorted(RANGES))
def test_images_in_the_expected_range_pass(expected):
    check_input_range(photos(*expected), expected)
    check_input_range(photos(*expected)[:1], expected)


@pytest.mark.parametrize("expected", sorted(RANGES))
@pytest.mark.parametrize("actual", sorted(RANGES))
def test_images_in_another_range_are_refused_with_the_scale_that_mends_them(actual, expected):
    if actual == expected:
        return
    images = photos(*actual)
    with pytest.raises(UserError, match="the images lie in") as one:
        check_input_range(images, expected)
    factor, shift = str(one.value).rsplit("x * ", 1)[1].split(" + ")
    mended = images * float(factor) + float(shift)
    assert (mended.min(), mended.max()) == pytest.approx(expected, abs=1e-3 * expected[1])


def test_dark_photos_are_no_mistake():
    check_input_range(photos(-1.0, -0.2), (-1.0, 1.0))
    check_input_range(photos(0.0, 0.4), (0.0, 1.0))


def test_images_in_no_usual_range_are_refused_without_a_scale():
    with pytest.raises(UserError, match=r"lie in \[-50, 300\], but the model expects \[-1, 1\]$"):
        check_input_range(photos(-50.0, 300.0), (-1.0, 1.0))


def test_images_that_are_no_numbers_are_refused():
    images = photos(-1.0, 1.0)
    images[3, 1, 1, 0] = np.nan
    with pytest.raises(UserError, match="nan"):
        check_input_range(images, (-1.0, 1.0))
