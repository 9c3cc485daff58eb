"""How large a model is, by arithmetic on its block table: parameters and multiply-adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from training.models.archs import (
    SQUEEZE_DIVISOR,
    Block,
    Bottleneck,
    Conv,
    FusedBottleneck,
    Pool,
    Separable,
)
from training.models.configs import MobileNetConfig

_COLORS = 3


@dataclasses.dataclass(frozen=True)
class Parameters:
    """A model's parameters in the four ways in which people count them.

    Attributes:
        trainable: weights, biases, and gamma and beta of batch norm.
        total: the moving mean and variance as well.
        without_batch_norm: weights and biases alone.
        three_of_four_batch_norm: weights, biases, and one moving statistic beside gamma and beta.
    """

    trainable: int
    total: int
    without_batch_norm: int
    three_of_four_batch_norm: int


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution's kernel, and where it is applied.

    Attributes:
        kernel: values in the kernel.
        channels: of the output.
        positions: pixels of the output.
        norm: batch norm follows; without it there is a bias.
    """

    kernel: int
    channels: int
    positions: int
    norm: bool = True


def count_parameters(config: MobileNetConfig) -> Parameters:
    """Counts a model's parameters; a quantisation-aware one's ranges are not among them."""
    weights = norms = 0
    for convolution in convolutions(config):
        weights += convolution.kernel + (0 if convolution.norm else convolution.channels)
        norms += convolution.channels if convolution.norm else 0
    return Parameters(
        trainable=weights + 2 * norms,
        total=weights + 4 * norms,
        without_batch_norm=weights,
        three_of_four_batch_norm=weights + 3 * norms,
    )


def count_macs(config: MobileNetConfig) -> int:
    """Multiply-adds of all convolutions for one image, the logits among them.

    Batch norm, biases, activations and pooling count nothing, as usual in the papers.
    """
    # Each position of the output takes the whole kernel once, in a depthwise convolution too.
    return sum(c.kernel * c.positions for c in convolutions(config))


def convolutions(config: MobileNetConfig) -> Iterator[Convolution]:
    """All convolutions of a model from the input to the logits."""
    channels, (height, width) = _COLORS, config.resolution
    for block in config.family.blocks:
        if isinstance(block, Pool):
            height = width = 1
            continue
        before = height * width
        height, width = -(-height // block.stride), -(-width // block.stride)  # padding is SAME
        out = config.family.channels(block, config.width_multiplier)
        yield from _convolutions_of(block, config, channels, out, before, height * width)
        channels = out
    yield Convolution(channels * config.num_classes, config.num_classes, 1, norm=False)


def _convolutions_of(
    block: Block, config: MobileNetConfig, channels: int, out: int, before: int, after: int
) -> Iterator[Convolution]:
    """The convolutions of one row: from `channels` to `out`, `before` to `after` positions."""
    area = block.kernel**2
    if isinstance(block, Conv):
        yield Convolution(area * channels * out, out, after, block.norm)
        return
    inner = channels
    if isinstance(block, Bottleneck | FusedBottleneck):
        fused = isinstance(block, FusedBottleneck)
        inner = config.family.width_of(channels * block.expansion)
        if inner > channels:
            kernel, positions = (area, after) if fused else (1, before)
            yield Convolution(kernel * channels * inner, inner, positions)
    if isinstance(block, Bottleneck | Separable):
        yield Convolution(area * inner, inner, after)
    if isinstance(block, Bottleneck) and block.se:
        squeezed = config.family.width_of(inner / SQUEEZE_DIVISOR)
        yield Convolution(inner * squeezed, squeezed, 1, norm=False)
        yield Convolution(squeezed * inner, inner, 1, norm=False)
    yield Convolution(inner * out, out, after)
