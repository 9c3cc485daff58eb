"""Statistics of an evaluation, against formulas written out one example at a time."""

import collections
import math

import numpy as np
import pytest

from pipeline.evaluation import statistics
from training.evaluation import Outcomes

NUM_CLASSES, NUM_OUTPUTS, OFFSET = 5, 6, 1


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    rng = np.random.default_rng(0)
    count = 400
    classes = rng.integers(0, NUM_CLASSES, count)
    predicted = np.where(rng.random(count) < 0.6, classes + OFFSET, rng.integers(0, 6, count))
    is_right = predicted == classes + OFFSET
    rank = np.where(is_right, 0, rng.integers(1, NUM_OUTPUTS, count))
    # Some on the edges of bins: 0, 1, and thirds.
    probability = np.where(rng.random(count) < 0.2, rng.choice([0, 1 / 3, 2 / 3, 1], count), 0.5)
    probability = np.where(probability == 0.5, rng.random(count), probability)
    return Outcomes(np.arange(count) + 7, classes, predicted, rank, probability, np.ones(count))


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (10, 10), (229, 500), (1, 3), (45, 50000)])
def test_the_interval_holds_the_shares_that_the_score_test_does_not_reject(correct, count):
    """Wilson's interval is where |share - p| <= z sqrt(p (1 - p) / count): its ends are equal."""
    low, high = statistics.wilson_interval(correct, count)
    share = correct / count
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    for p in (low, high):
        if 1e-9 < p < 1 - 1e-9:
            assert abs(share - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / count))


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_accuracy(outcomes):
    bins = collections.defaultdict(list)
    for probability, rank in zip(outcomes.probability, outcomes.rank, strict=True):
        number = next(
            n for n in range(15) if probability <= (n + 1) / 15 and (n == 0 or probability > n / 15)
        )
        bins[number].append((probability, rank == 0))
    expected = sum(
        len(rows) / 400 * abs(np.mean([p for p, _ in rows]) - np.mean([r for _, r in rows]))
        for rows in bins.values()
    )
    found = statistics.calibration(outcomes)
    assert found["ece"] == pytest.approx(expected)
    assert [row["count"] for row in found["bins"]] == [len(bins[n]) for n in range(15)]
    assert found["bins"][0]["low"] == 0 and found["bins"][-1]["high"] == 1


def test_a_model_as_sure_as_it_is_right_is_calibrated():
    rank = np.array([0] * 3 + [1])
    some = Outcomes(np.arange(4), rank, rank, rank, np.full(4, 0.75), np.ones(4))
    found = statistics.calibration(some)
    assert found["ece"] == pytest.approx(0)
    empty = [row for row in found["bins"] if not row["count"]]
    assert len(empty) == 14 and empty[0]["confidence"] is None and empty[0]["accuracy"] is None


def test_the_confusion_matrix_and_its_pairs_count_true_class_by_output(outcomes):
    counts = collections.Counter(
        zip(outcomes.class_index.tolist(), outcomes.predicted.tolist(), strict=True)
    )
    matrix = statistics.confusion_matrix(outcomes, NUM_CLASSES, NUM_OUTPUTS)
    assert matrix.shape == (NUM_CLASSES, NUM_OUTPUTS)
    assert {(i, j): matrix[i, j] for i, j in counts} == counts and matrix.sum() == 400
    wrong = {pair: count for pair, count in counts.items() if pair[1] != pair[0] + OFFSET}
    pairs = statistics.confusion_pairs(outcomes, OFFSET, at_most=9)
    assert len(pairs) == 9
    assert [count for *_, count in pairs] == sorted(wrong.values(), reverse=True)[:9]
    assert all(wrong[i, j] == count for i, j, count in pairs)


def test_classes_and_mistakes(outcomes):
    counts, right = statistics.per_class(outcomes, NUM_CLASSES)
    for index in range(NUM_CLASSES):
        ranks = outcomes.rank[outcomes.class_index == index]
        assert (counts[index], right[index]) == (len(ranks), (ranks == 0).sum())
    worst = statistics.worst_mistakes(outcomes, 10)
    wrong = [row for row in range(400) if outcomes.rank[row]]
    wrong.sort(key=lambda row: -outcomes.probability[row])
    assert worst.tolist() == wrong[:10]
