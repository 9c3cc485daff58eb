"""Which operators of a LiteRT file belong to which layer and block of the model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import keras

# These hold no values that could be kept wider.
_PLUMBING = {"QUANTIZE", "DEQUANTIZE", "SHAPE", "STRIDED_SLICE", "PACK"}
_SEPARABLE_PARTS = ("_depthwise", "_pointwise")  # of V1's blocks; elsewhere a block ends at a '.'


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the model, as the converter sees it.

    Attributes:
        name: of the Keras layer.
        block: row of the block table that it belongs to.
        tensors: outputs of its operators.
        num_weights: values in its kernel and bias.
    """

    name: str
    block: str
    tensors: tuple[str, ...]
    num_weights: int


def find_layers(model: keras.Model, operators: Sequence[tuple[str, str]]) -> list[Layer]:
    """The layers that operators were made of.

    Args:
        model: what was converted.
        operators: kind and output tensor of each, in order.

    Returns:
        The layers in order. An operator that fuses several layers counts for the first of them.
    """
    tensors: dict[str, list[str]] = {}
    unused = [layer.name for layer in model.layers]
    current, last = unused[0], unused[-1]
    for kind, tensor in operators:
        if kind in _PLUMBING:
            continue
        # The output is named after the function instead.
        current = (_layer_of(tensor, unused) or current) if "/" in tensor else last
        if current in unused:
            unused.remove(current)
        tensors.setdefault(current, []).append(tensor)
    weights = {layer.name: layer.count_params() for layer in model.layers}
    return [
        Layer(name, block_of(name), tuple(outputs), weights[name])
        for name, outputs in tensors.items()
    ]


def block_of(layer: str) -> str:
    """'expanded_conv_3' for 'expanded_conv_3.project', 'Conv2d_3' for 'Conv2d_3_pointwise'."""
    block = layer.partition(".")[0]
    for part in _SEPARABLE_PARTS:
        block = block.removesuffix(part)
    return block


def _layer_of(tensor: str, unused: Sequence[str]) -> str | None:
    """The first unused layer that `tensor` is named after: `MODEL_1/LAYER_1/Op`, joined by ';'.

    TensorFlow numbers scopes, and layers have numbers of their own: `Conv_1` may be `Conv` or
    `Conv_1`. Operators come in the order of the layers, so that the first one unused is meant.
    """
    scopes = [name.split("/")[1] for name in tensor.split(";") if "/" in name]
    for layer in unused:
        if any(re.fullmatch(rf"{re.escape(layer)}(_\d+)?", scope) for scope in scopes):
            return layer
    return None
