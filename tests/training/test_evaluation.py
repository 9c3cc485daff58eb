import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from common.labels import LabelNumbering
from training.evaluation import NUM_WORST_MISTAKES, evaluate
from training.models import MobileNetV1Config, ModelRecord, check_input_range

NUM_CLASSES = 7


@dataclasses.dataclass(frozen=True)
class Split:
    """The part of a manifest that counting uses."""

    num_examples: int
    classes: tuple[str, ...] = tuple("abcdefg")
    split: str = "validation"


def record_of(offset=0) -> ModelRecord:
    return ModelRecord(
        MobileNetV1Config(NUM_CLASSES + offset, classifier_activation=None),
        LabelNumbering(NUM_CLASSES, offset),
    )


def count(logits, classes, batch_size=4, offset=0, num_examples=None):
    """Evaluates a model that gives example i the i-th row of `logits`.

    The images hold the number of their example, scaled into [-1, 1].
    """
    logits, total = np.asarray(logits, np.float32), len(logits)
    images = np.zeros([total, 2, 2, 3], np.float32)
    images[:, 0, 0, 0], images[:, 1] = np.linspace(-1, 1, total), (-1, 0, 1)
    batches = tf.data.Dataset.from_tensor_slices(
        {
            "images": images,
            "class_index": np.asarray(classes, np.int64),
            "file_name": [f"{index}.jpg" for index in range(total)],
        }
    ).batch(batch_size)

    def predict(batch):
        numbers = np.round((batch[:, 0, 0, 0].numpy() + 1) / 2 * max(1, total - 1)).astype(int)
        return tf.constant(logits[numbers])

    split = Split(total if num_examples is None else num_examples)
    return evaluate(predict, batches, split, record_of(offset))


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, NUM_CLASSES)), rng.integers(0, NUM_CLASSES, 50)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 49, 50, 64])
def test_counts_do_not_depend_on_the_batch_size_and_include_the_last_partial_batch(
    scores, batch_size
):
    logits, classes = scores
    result = count(logits, classes, batch_size)
    assert result.num_examples == 50
    for number, k in ((result.num_correct_top_1, 1), (result.num_correct_top_5, 5)):
        in_top_k = tf.math.in_top_k(classes, tf.constant(logits, tf.float32), k)
        assert number == np.count_nonzero(in_top_k)
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(50), classes])
    assert result.loss == pytest.approx(expected.mean(), rel=1e-5)
    assert (result.top_1, result.top_5) == (
        result.num_correct_top_1 / 50,
        result.num_correct_top_5 / 50,
    )


def test_the_confusion_matrix_counts_true_class_by_output(scores):
    logits, classes = scores
    result = count(logits, classes)
    expected = np.zeros([NUM_CLASSES, NUM_CLASSES], int)
    for row, index in zip(logits, classes, strict=True):
        expected[index, np.argmax(row)] += 1
    assert np.array_equal(result.confusion, expected)
    assert np.trace(result.confusion) == result.num_correct_top_1


def test_the_label_of_a_class_is_behind_the_background_where_there_is_one(scores):
    logits, classes = scores
    with_background = np.concatenate([np.full([50, 1], -9.0), logits], axis=1)
    one, other = count(logits, classes), count(with_background, classes, offset=1)
    assert one.num_correct_top_1 == other.num_correct_top_1
    assert np.array_equal(other.confusion[:, 1:], one.confusion)
    assert other.confusion.shape == (NUM_CLASSES, NUM_CLASSES + 1)


def test_of_equal_logits_the_first_is_before_the_others():
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
def test_logits_that_are_no_numbers_are_wrong(bad):
    for index in (0, 6):
        if np.isnan(bad[index]):
            result = count([bad, [9, 0, 0, 0, 0, 0, 0]], [index, 0])
            assert (result.num_correct_top_1, result.num_correct_top_5) == (1, 1)


def test_the_most_confident_mistakes_come_first_with_their_files():
    logits = np.zeros([60, NUM_CLASSES])
    logits[:, 1] = np.random.default_rng(2).permutation(60) / 10 + 0.1
    classes = np.zeros(60, int)
    classes[::10] = 1  # these six are right
    mistakes = count(logits, classes).mistakes
    wrong = [i for i in np.argsort(-logits[:, 1]) if classes[i] == 0][:NUM_WORST_MISTAKES]
    assert [mistake.file_name for mistake in mistakes] == [f"{index}.jpg" for index in wrong]
    assert {(m.class_index, m.predicted_output) for m in mistakes} == {(0, 1)}
    largest = np.exp(logits[wrong[0], 1])
    assert mistakes[0].probability == pytest.approx(largest / (largest + 6), rel=1e-5)


def test_another_number_of_examples_than_the_manifest_counts_is_an_error(scores):
    with pytest.raises(UserError, match=r"50 examples were read of split 'validation'.*counts 51"):
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
