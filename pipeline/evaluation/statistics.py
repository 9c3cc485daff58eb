"""What is told about a model, worked out from what it made of each example; plain NumPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from training.evaluation import Outcomes

NUM_BINS = 15
NUM_PAIRS = 20
NUM_MISTAKES = 24

_Z = 1.959964  # a normal variable lies within so many standard deviations in 95 % of cases


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy seen as `correct` of `count` examples."""
    share, shrink = correct / count, 1 + _Z * _Z / count
    centre = (share + _Z * _Z / (2 * count)) / shrink
    reach = _Z * math.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2) / shrink
    return max(0.0, centre - reach), min(1.0, centre + reach)


def calibration(outcomes: Outcomes, num_bins: int = NUM_BINS) -> dict[str, Any]:
    """How far the probability of the output predicted is from how often it is right.

    Returns:
        `ece`, the expected calibration error: the mean over examples of the distance, bin by bin,
        between confidence and accuracy; and the `bins`, equally wide and closed at their upper
        ends: low, high, count, mean confidence, accuracy (both null where a bin is empty).
    """
    numbers = np.clip(np.ceil(outcomes.probability * num_bins) - 1, 0, num_bins - 1).astype(int)
    bins, error = [], 0.0
    for number in range(num_bins):
        inside = numbers == number
        count = int(np.count_nonzero(inside))
        confidence = float(outcomes.probability[inside].mean()) if count else None
        accuracy = float(outcomes.is_correct[inside].mean()) if count else None
        if count:
            error += count * abs(confidence - accuracy)
        bins.append(
            {
                "low": number / num_bins,
                "high": (number + 1) / num_bins,
                "count": count,
                "confidence": confidence,
                "accuracy": accuracy,
            }
        )
    return {"ece": error / outcomes.num_examples, "bins": bins}


def confusion_matrix(outcomes: Outcomes, num_classes: int, num_outputs: int) -> np.ndarray:
    """(classes, outputs) counts: rows are true classes, columns the output predicted."""
    cells = outcomes.class_index * num_outputs + outcomes.predicted
    counts = np.bincount(cells, minlength=num_classes * num_outputs)
    return counts.reshape(num_classes, num_outputs)


def confusion_pairs(
    outcomes: Outcomes, label_offset: int, at_most: int = NUM_PAIRS
) -> list[tuple[int, int, int]]:
    """The most frequent (class index, output predicted, count) of wrong answers.

    The most frequent come first, and of equally frequent ones those of the first class.
    """
    pairs = np.stack([outcomes.class_index, outcomes.predicted], axis=1)
    wrong = pairs[outcomes.predicted != outcomes.class_index + label_offset]
    found, counts = np.unique(wrong, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:at_most]
    return [(*found[i].tolist(), int(counts[i])) for i in order]


def per_class(outcomes: Outcomes, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples, and right answers, of each class."""
    counts = np.bincount(outcomes.class_index, minlength=num_classes)
    right = np.bincount(outcomes.class_index[outcomes.is_correct], minlength=num_classes)
    return counts, right


def worst_mistakes(outcomes: Outcomes, at_most: int = NUM_MISTAKES) -> np.ndarray:
    """Rows of the wrong answers that the model was most confident of, most confident first."""
    wrong = np.flatnonzero(~outcomes.is_correct)
    order = np.argsort(-outcomes.probability[wrong], kind="stable")
    return wrong[order[:at_most]]
