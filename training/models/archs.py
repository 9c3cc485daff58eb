"""Block tables that read like the papers' tables.

A row is one block, from the input to the last layer before the logits. Widths are those at width
multiplier 1; `Family.width_of` says what another multiplier makes of them. What a block's layers
are called follows from its place in the table, by the rule of the TF1 (slim) models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Conv:
    """An ordinary convolution with activation.

    Attributes:
        norm: batch norm between the two; without it the convolution has a bias.
        keep_width: a multiplier below 1 leaves the width as it is, as in all released models.
    """

    kernel: int
    stride: int
    out: int
    activation: str = "relu6"
    norm: bool = True
    keep_width: bool = False


@dataclasses.dataclass(frozen=True)
class Separable:
    """A depthwise and a 1x1 convolution, each with batch norm and activation (V1)."""

    kernel: int
    stride: int
    out: int
    activation: str = "relu6"


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """Expand by a 1x1 convolution, filter depthwise, squeeze and excite, project (V2, V3).

    Attributes:
        expansion: inner width over the input's width.
        se: squeeze-and-excite behind the depthwise convolution.
        residual: the input is added where stride and widths allow it.
    """

    kernel: int
    stride: int
    expansion: float
    out: int
    activation: str = "relu6"
    se: bool = False
    residual: bool = True


@dataclasses.dataclass(frozen=True)
class FusedBottleneck:
    """Expand by an ordinary k x k convolution, project; nothing depthwise (EdgeTPU).

    With an expansion of 1 there is nothing to expand, and the projection is all there is.
    """

    kernel: int
    stride: int
    expansion: float
    out: int
    activation: str = "relu6"
    residual: bool = True


@dataclasses.dataclass(frozen=True)
class Pool:
    """Averages over the feature map."""


Block = Conv | Separable | Bottleneck | FusedBottleneck | Pool


@dataclasses.dataclass(frozen=True)
class Family:
    """What all models of one family share.

    Attributes:
        name: what the flag --model_name calls it.
        scope: the variable scope of the TF1 model.
        blocks: the block table.
        width_of: channels of a layer from its width at multiplier 1 and the multiplier.
        block_names: scopes of the blocks below the model's, one a row.
    """

    name: str
    scope: str
    blocks: tuple[Block, ...]
    width_of: Callable[[float, float], int]
    block_names: Callable[[tuple[Block, ...]], list[str]]

    def named_blocks(self) -> list[tuple[str, Block]]:
        """The rows of the table with their scopes."""
        return list(zip(self.block_names(self.blocks), self.blocks, strict=True))

    def channels(self, block: Block, multiplier: float) -> int:
        """Width of a block's output."""
        if getattr(block, "keep_width", False):
            multiplier = max(multiplier, 1.0)
        return self.width_of(block.out, multiplier)


def truncated_width(width: float, multiplier: float = 1.0, minimum: int = 8) -> int:
    """V1's rule: cut off the fraction, and never fewer than 8 channels (slim, mobilenet_v1.py)."""
    return max(int(width * multiplier), minimum)


def divisible_width(width: float, multiplier: float = 1.0, divisor: int = 8) -> int:
    """Rounds to a multiple of 8, at least 8, and loses no more than 10 % (slim, conv_blocks.py)."""
    width *= multiplier
    rounded = max(int(width + divisor / 2) // divisor * divisor, divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def v1_block_names(blocks: tuple[Block, ...]) -> list[str]:
    """`Conv2d_0`, `Conv2d_1`, ...; the pooling has no variables, and slim's name."""
    return ["AvgPool_1a" if isinstance(b, Pool) else f"Conv2d_{i}" for i, b in enumerate(blocks)]


def numbered_block_names(blocks: tuple[Block, ...]) -> list[str]:
    """`Conv`, `expanded_conv`, `expanded_conv_1`, ..., `Conv_1`: the first of a kind is bare."""
    kinds = {Conv: "Conv", Pool: "AvgPool"}
    names, seen = [], {}
    for block in blocks:
        kind = kinds.get(type(block), "expanded_conv")
        number = seen[kind] = seen.get(kind, -1) + 1
        names.append(f"{kind}_{number}" if number else kind)
    return names


def minimalistic(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """The same table with 3x3 kernels, relu everywhere and no squeeze-and-excite."""

    def simplify(block: Block) -> Block:
        if isinstance(block, Bottleneck):
            return dataclasses.replace(block, kernel=3, activation="relu", se=False)
        if isinstance(block, Conv):
            return dataclasses.replace(block, activation="relu")
        return block

    return tuple(simplify(block) for block in blocks)


# Squeeze-and-excite's inner width is this part of the block's inner width.
SQUEEZE_DIVISOR = 4

RE, HS = "relu", "hard_swish"  # a row that says nothing has relu6

# Howard et al., arXiv:1704.04861, table 1; one separable row is two of the paper's rows.
MOBILENET_V1 = Family(
    name="mobilenet_v1",
    scope="MobilenetV1",
    width_of=truncated_width,
    block_names=v1_block_names,
    blocks=(
        #    kernel stride out
        Conv(3, 2, 32),
        Separable(3, 1, 64),
        Separable(3, 2, 128),
        Separable(3, 1, 128),
        Separable(3, 2, 256),
        Separable(3, 1, 256),
        Separable(3, 2, 512),
        Separable(3, 1, 512),
        Separable(3, 1, 512),
        Separable(3, 1, 512),
        Separable(3, 1, 512),
        Separable(3, 1, 512),
        Separable(3, 2, 1024),
        Separable(3, 1, 1024),
        Pool(),
    ),
)

# Sandler et al., arXiv:1801.04381, table 2; a row of the paper with n > 1 is n rows here.
MOBILENET_V2 = Family(
    name="mobilenet_v2",
    scope="MobilenetV2",
    width_of=divisible_width,
    block_names=numbered_block_names,
    blocks=(
        #    kernel stride out
        Conv(3, 2, 32),
        #    kernel stride expansion out
        Bottleneck(3, 1, 1, 16),
        Bottleneck(3, 2, 6, 24),
        Bottleneck(3, 1, 6, 24),
        Bottleneck(3, 2, 6, 32),
        Bottleneck(3, 1, 6, 32),
        Bottleneck(3, 1, 6, 32),
        Bottleneck(3, 2, 6, 64),
        Bottleneck(3, 1, 6, 64),
        Bottleneck(3, 1, 6, 64),
        Bottleneck(3, 1, 6, 64),
        Bottleneck(3, 1, 6, 96),
        Bottleneck(3, 1, 6, 96),
        Bottleneck(3, 1, 6, 96),
        Bottleneck(3, 2, 6, 160),
        Bottleneck(3, 1, 6, 160),
        Bottleneck(3, 1, 6, 160),
        Bottleneck(3, 1, 6, 320),
        Conv(1, 1, 1280, keep_width=True),
        Pool(),
    ),
)

# Howard et al., arXiv:1905.02244, table 1. The expansion is the paper's 'exp size' over the input.
MOBILENET_V3_LARGE = Family(
    name="mobilenet_v3_large",
    scope="MobilenetV3",
    width_of=divisible_width,
    block_names=numbered_block_names,
    blocks=(
        Conv(3, 2, 16, HS),
        #    kernel stride expansion out
        Bottleneck(3, 1, 1, 16, RE),
        Bottleneck(3, 2, 4, 24, RE),
        Bottleneck(3, 1, 3, 24, RE),
        Bottleneck(5, 2, 3, 40, RE, se=True),
        Bottleneck(5, 1, 3, 40, RE, se=True),
        Bottleneck(5, 1, 3, 40, RE, se=True),
        Bottleneck(3, 2, 6, 80, HS),
        Bottleneck(3, 1, 2.5, 80, HS),
        Bottleneck(3, 1, 184 / 80, 80, HS),
        Bottleneck(3, 1, 184 / 80, 80, HS),
        Bottleneck(3, 1, 6, 112, HS, se=True),
        Bottleneck(3, 1, 6, 112, HS, se=True),
        Bottleneck(5, 2, 6, 160, HS, se=True),
        Bottleneck(5, 1, 6, 160, HS, se=True),
        Bottleneck(5, 1, 6, 160, HS, se=True),
        Conv(1, 1, 960, HS),
        Pool(),
        Conv(1, 1, 1280, HS, norm=False, keep_width=True),
    ),
)

# Howard et al., arXiv:1905.02244, table 2.
MOBILENET_V3_SMALL = Family(
    name="mobilenet_v3_small",
    scope="MobilenetV3",
    width_of=divisible_width,
    block_names=numbered_block_names,
    blocks=(
        Conv(3, 2, 16, HS),
        #    kernel stride expansion out
        Bottleneck(3, 2, 1, 16, RE, se=True),
        Bottleneck(3, 2, 72 / 16, 24, RE),
        Bottleneck(3, 1, 88 / 24, 24, RE),
        Bottleneck(5, 2, 4, 40, HS, se=True),
        Bottleneck(5, 1, 6, 40, HS, se=True),
        Bottleneck(5, 1, 6, 40, HS, se=True),
        Bottleneck(5, 1, 3, 48, HS, se=True),
        Bottleneck(5, 1, 3, 48, HS, se=True),
        Bottleneck(5, 2, 6, 96, HS, se=True),
        Bottleneck(5, 1, 6, 96, HS, se=True),
        Bottleneck(5, 1, 6, 96, HS, se=True),
        Conv(1, 1, 576, HS),
        Pool(),
        Conv(1, 1, 1024, HS, norm=False, keep_width=True),
    ),
)

# The V3 tables for hardware without these operators (slim, mobilenet_v3.py, *_MINIMALISTIC).
MOBILENET_V3_LARGE_MINIMALISTIC = dataclasses.replace(
    MOBILENET_V3_LARGE,
    name="mobilenet_v3_large_minimalistic",
    blocks=minimalistic(MOBILENET_V3_LARGE.blocks),
)
MOBILENET_V3_SMALL_MINIMALISTIC = dataclasses.replace(
    MOBILENET_V3_SMALL,
    name="mobilenet_v3_small_minimalistic",
    blocks=minimalistic(MOBILENET_V3_SMALL.blocks),
)

# slim, mobilenet_v3.py, V3_EDGETPU; there is no paper.
MOBILENET_EDGETPU = Family(
    name="mobilenet_edgetpu",
    scope="MobilenetEdgeTPU",
    width_of=divisible_width,
    block_names=numbered_block_names,
    blocks=(
        Conv(3, 2, 32, RE),
        #    kernel stride expansion out
        FusedBottleneck(3, 1, 1, 16, RE),
        FusedBottleneck(3, 2, 8, 32, RE),
        FusedBottleneck(3, 1, 4, 32, RE),
        FusedBottleneck(3, 1, 4, 32, RE),
        FusedBottleneck(3, 1, 4, 32, RE),
        FusedBottleneck(3, 2, 8, 48, RE),
        FusedBottleneck(3, 1, 4, 48, RE),
        FusedBottleneck(3, 1, 4, 48, RE),
        FusedBottleneck(3, 1, 4, 48, RE),
        Bottleneck(3, 2, 8, 96, RE),
        Bottleneck(3, 1, 4, 96, RE),
        Bottleneck(3, 1, 4, 96, RE),
        Bottleneck(3, 1, 4, 96, RE),
        Bottleneck(3, 1, 8, 96, RE, residual=False),
        Bottleneck(3, 1, 4, 96, RE),
        Bottleneck(3, 1, 4, 96, RE),
        Bottleneck(3, 1, 4, 96, RE),
        Bottleneck(5, 2, 8, 160, RE),
        Bottleneck(5, 1, 4, 160, RE),
        Bottleneck(5, 1, 4, 160, RE),
        Bottleneck(5, 1, 4, 160, RE),
        Bottleneck(3, 1, 8, 192, RE),
        Conv(1, 1, 1280, RE, keep_width=True),
        Pool(),
    ),
)
