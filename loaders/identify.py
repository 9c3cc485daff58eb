"""What model a TF1 checkpoint is of, by its variables alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from training.models.archs import (
    Block,
    Bottleneck,
    Conv,
    Family,
    FusedBottleneck,
    Pool,
    Separable,
)
from training.models.configs import CONFIGS

LOGITS_BIASES = "Logits/Conv2d_1c_1x1/biases"

# The released widths, then all hundredths: of several that give the same channels, the usual one.
_WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.3, 1.4, *(percent / 100 for percent in range(1, 301)))

_KERNELS = ("weights", "depthwise_weights")

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Identity:
    """A model's family and size.

    Attributes:
        family: the block table.
        width_multiplier: None if no multiplier gives the widths that are there.
        num_outputs: logits; None if there is no logits layer.
    """

    family: Family
    width_multiplier: float | None
    num_outputs: int | None

    def __str__(self) -> str:
        width = self.width_multiplier
        width = "an unknown width" if width is None else f"width {width:g}"
        outputs = "no logits" if self.num_outputs is None else f"{self.num_outputs} outputs"
        return f"{self.family.name} at {width} with {outputs}"


def identify(shapes: Shapes) -> Identity | None:
    """The model whose variables these are, or None if it is none of the families.

    Of the families under the checkpoint's scope, it is the one whose kernels differ least in name
    and size; of several, the one that some width multiplier fits.
    """
    scopes = {name.split("/", 1)[0] for name in shapes}
    found = []
    for config in CONFIGS.values():
        family = config.family
        if family.scope in scopes:
            differences = set(_kernels(family)) ^ _stored_kernels(family, shapes)
            found.append((len(differences), family))
    if not found:
        return None
    fewest = min(count for count, _ in found)
    nearest = [(_width(family, shapes), family) for count, family in found if count == fewest]
    width, family = next((pair for pair in nearest if pair[0] is not None), nearest[0])
    biases = shapes.get(f"{family.scope}/{LOGITS_BIASES}")
    return Identity(family, width, biases[0] if biases else None)


def _kernels(family: Family) -> Iterator[tuple[str, int]]:
    """Scope and side of each kernel but that of the logits."""
    for name, block in family.named_blocks():
        if isinstance(block, Separable):
            yield f"{name}_depthwise", block.kernel
        elif isinstance(block, FusedBottleneck) and block.expansion > 1:
            yield f"{name}/expand", block.kernel
        elif isinstance(block, Bottleneck):
            if block.expansion > 1:
                yield f"{name}/expand", 1
            yield f"{name}/depthwise", block.kernel
            if block.se:
                yield f"{name}/squeeze_excite/Conv", 1
                yield f"{name}/squeeze_excite/Conv_1", 1
        if not isinstance(block, Pool):
            side = block.kernel if isinstance(block, Conv) else 1
            yield _last_convolution(name, block), side


def _last_convolution(name: str, block: Block) -> str:
    """Scope of the convolution that gives a block its width."""
    return {Conv: name, Separable: f"{name}_pointwise"}.get(type(block), f"{name}/project")


def _stored_kernels(family: Family, shapes: Shapes) -> set[tuple[str, int]]:
    """Scope and side of each kernel that the checkpoint holds, without that of the logits."""
    kernels = set()
    for name, shape in shapes.items():
        scope, _, layer = name.rpartition("/")[0].partition("/")
        is_kernel = name.rpartition("/")[-1] in _KERNELS and len(shape) == 4
        if is_kernel and scope == family.scope and not layer.startswith("Logits"):
            kernels.add((layer, shape[0]))
    return kernels


def _width(family: Family, shapes: Shapes) -> float | None:
    """The multiplier that gives every block's output the channels it has."""
    found = []
    for name, block in family.named_blocks():
        if isinstance(block, Pool):
            continue
        shape = shapes.get(f"{family.scope}/{_last_convolution(name, block)}/weights")
        if not shape:
            return None
        found.append((block, shape[-1]))
    return next(
        (
            width
            for width in _WIDTHS
            if all(family.channels(block, width) == out for block, out in found)
        ),
        None,
    )
