"""Which layers to keep in float, so that an 8-bit file answers as the model does.

Rounding adds up from layer to layer, and what a single layer adds says little: its neighbours round
the same values again. So whole blocks are tried in float, one after the other, and the one that
brings the answers nearest to the model's comes first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.formats.int8.layers import Layer

_SMALL = 0.01  # of the weights kept wide: so few are left as they are
_SLACK = 1.1  # of the divergence, when layers are made narrow again


@dataclasses.dataclass(frozen=True)
class Drift:
    """How far answers are from the model's.

    Attributes:
        agreement: part of the photos with the same top-1 class.
        divergence: mean Kullback-Leibler divergence of the probabilities, in nats. It moves with
            any change, where the agreement on some hundred photos stands still.
    """

    agreement: float
    divergence: float


def drift_between(expected: np.ndarray, found: np.ndarray) -> Drift:
    """Compares logits, (n, outputs) each."""
    of_model, of_file = _log_softmax(expected), _log_softmax(found)
    divergence = np.sum(np.exp(of_model) * (of_model - of_file), axis=1)
    agreement = np.mean(np.argmax(expected, axis=1) == np.argmax(found, axis=1))
    return Drift(float(agreement), float(np.mean(divergence)))


def find_wide_layers(
    layers: Sequence[Layer], drift_of: Callable[[Sequence[Layer]], Drift], min_agreement: float
) -> list[Layer]:
    """The layers to keep in float: the worst blocks, less the layers in them that can be spared.

    Args:
        layers: all of them, in order.
        drift_of: converts with these layers in float, and compares.
        min_agreement: what must hold.

    Returns:
        The layers in order; none where the limit holds without. All of them where it never holds.
    """
    reached = drift_of([])
    wide: list[Layer] = []
    blocks = {layer.block for layer in layers}
    count = 1
    while reached.agreement < min_agreement and blocks:
        for block in _most_helpful(blocks, layers, wide, drift_of)[:count]:
            blocks.remove(block)
            wide = _with_block(wide, block, layers)
            reached = drift_of(wide)
            if reached.agreement >= min_agreement:
                break
        count *= 4  # where one block does not do, trying all after each would take long
    return _without_spare(wide, drift_of, min_agreement, _SLACK * reached.divergence)


def _most_helpful(blocks, layers, wide, drift_of) -> list[str]:
    """The blocks by how near the answers come to the model's with each of them in float too."""
    divergence = {
        block: drift_of(_with_block(wide, block, layers)).divergence for block in sorted(blocks)
    }
    return sorted(divergence, key=divergence.__getitem__)


def _without_spare(wide, drift_of, min_agreement, max_divergence) -> list[Layer]:
    """Takes out what is not needed, the largest layers first."""
    worthwhile = _SMALL * sum(layer.num_weights for layer in wide)
    for layer in sorted(wide, key=lambda layer: layer.num_weights, reverse=True):
        if layer.num_weights < worthwhile:
            break
        fewer = [other for other in wide if other is not layer]
        drift = drift_of(fewer)
        if drift.agreement >= min_agreement and drift.divergence <= max_divergence:
            wide = fewer
    return wide


def _with_block(wide, block: str, layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if layer in wide or layer.block == block]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - np.max(logits, axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
