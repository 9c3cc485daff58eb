"""How closely logits follow the model's, in terms of what they tell about photos.

A softmax does not see what is added to all logits of a photo, and what is the same for all photos
says nothing about them. What is left is what a model knows: with flat probabilities, whose largest
difference is small whatever the weights are, it still tells artifacts apart.
"""

from __future__ import annotations

import numpy as np

# Below so many units in the last place of the logits, what differs between photos is rounding.
_ROUNDING = 16 * np.finfo(np.float32).eps


def logit_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of a logit, in parts of the spread of the model's logits over the photos.

    Args:
        found: (n, outputs) logits.
        expected: those of the model.
    """
    difference = np.abs(_centred(found) - _centred(expected)).max()
    spread = _root_mean_square(_varying(expected))
    # A model that gives one answer to all photos spreads by nothing but rounding.
    floor = max(_rounding(expected), np.finfo(np.float32).tiny)
    return float(difference / max(spread, floor))


def correlation(found: np.ndarray, expected: np.ndarray) -> float:
    """Of what differs between photos; 0 where an artifact's outputs do not, though they should.

    Args:
        found: (n, outputs) logits.
        expected: those of the model. Where they are the same for all photos, there is nothing to
            follow: 1.
    """
    ours, theirs = _varying(expected), _varying(found)
    if _root_mean_square(ours) <= _rounding(expected):
        return 1.0
    norm = np.sqrt(np.sum(np.square(ours)) * np.sum(np.square(theirs)))
    return float(np.sum(ours * theirs) / norm) if norm != 0.0 else 0.0


def _centred(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - logits.mean(axis=1, keepdims=True)


def _varying(logits: np.ndarray) -> np.ndarray:
    """What differs between photos; of one photo, between outputs."""
    centred = _centred(logits)
    return centred - centred.mean(axis=0) if len(centred) > 1 else centred


def _rounding(logits: np.ndarray) -> float:
    return _ROUNDING * _root_mean_square(logits.astype(np.float64))


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
