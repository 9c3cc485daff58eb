"""Block tables that read like the papers' tables, and the configuration classes.

A row is one block, from the input to the last convolution before the head. Widths are those at
width multiplier 1; `Family.round_width` says what another multiplier makes of them. Names are the
variable scopes of the TF1 (slim) models below the model's own scope.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

from common.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Conv:
    """An ordinary convolution with batch norm and activation."""

    name: str
    kernel: int
    stride: int
    out: int


@dataclasses.dataclass(frozen=True)
class Separable:
    """A depthwise convolution and a 1x1 convolution, each with batch norm and activation."""

    name: str
    kernel: int
    stride: int
    out: int


@dataclasses.dataclass(frozen=True)
class Family:
    """What all models of one family share.

    Attributes:
        name: what the flag --model_name calls it.
        scope: the variable scope of the TF1 model.
        blocks: the block table.
        round_width: channels of a layer from its width at multiplier 1 and the multiplier.
        activation: the activation after every batch norm.
    """

    name: str
    scope: str
    blocks: tuple[Conv | Separable, ...]
    round_width: Callable[[int, float], int]
    activation: str


def truncated_width(width: int, multiplier: float, minimum: int = 8) -> int:
    """V1's rule: cut off the fraction, and never fewer than 8 channels (slim, mobilenet_v1.py)."""
    return max(int(width * multiplier), minimum)


MOBILENET_V1 = Family(
    name="mobilenet_v1",
    scope="MobilenetV1",
    round_width=truncated_width,
    activation="relu6",
    # Howard et al., arXiv:1704.04861, table 1; one separable row is two of the paper's rows.
    blocks=(
        #          name         kernel stride out
        Conv("Conv2d_0", 3, 2, 32),
        Separable("Conv2d_1", 3, 1, 64),
        Separable("Conv2d_2", 3, 2, 128),
        Separable("Conv2d_3", 3, 1, 128),
        Separable("Conv2d_4", 3, 2, 256),
        Separable("Conv2d_5", 3, 1, 256),
        Separable("Conv2d_6", 3, 2, 512),
        Separable("Conv2d_7", 3, 1, 512),
        Separable("Conv2d_8", 3, 1, 512),
        Separable("Conv2d_9", 3, 1, 512),
        Separable("Conv2d_10", 3, 1, 512),
        Separable("Conv2d_11", 3, 1, 512),
        Separable("Conv2d_12", 3, 2, 1024),
        Separable("Conv2d_13", 3, 1, 1024),
    ),
)


@dataclasses.dataclass(frozen=True)
class MobileNetConfig:
    """What a model is made of; `training.models.build_model` builds it.

    Attributes:
        num_classes: logits, a background class included (1001 for the TF1 checkpoints).
        input_shape: (height, width, 3) in pixels.
        width_multiplier: scales the channels of every layer, 'alpha' in the papers.
        dropout_rate: part of the features dropped before the logits in training.
        batch_norm_decay: decay of the moving mean and variance, one step.
        batch_norm_epsilon: added to the variance.
        weight_decay: L2 factor w of the loss w / 2 * sum(kernel^2), on ordinary convolutions only.
        stddev: standard deviation of the truncated normal initial kernels.
        activation_name: another activation for the whole model, or None for the family's own.
        classifier_activation: 'softmax' for probabilities, None for logits.
    """

    family: ClassVar[Family]

    num_classes: int = 1001
    input_shape: tuple[int, int, int] = (224, 224, 3)
    width_multiplier: float = 1.0
    dropout_rate: float = 0.2
    batch_norm_decay: float = 0.997
    batch_norm_epsilon: float = 0.001
    weight_decay: float = 4e-5
    stddev: float = 0.09
    activation_name: str | None = None
    classifier_activation: str | None = "softmax"

    def __post_init__(self):
        if isinstance(self.input_shape, list):  # as JSON has it
            object.__setattr__(self, "input_shape", tuple(self.input_shape))
        for name, (rule, holds) in _RULES.items():
            value = getattr(self, name)
            if not _holds(holds, value):
                raise UsageError(f"{name} of {self.family.name} must be {rule}, not {value!r}")

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.input_shape[:2]

    def replace(self, **changes: Any) -> MobileNetConfig:
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class MobileNetV1Config(MobileNetConfig):
    """MobileNetV1, Howard et al., arXiv:1704.04861. Defaults are those of slim's mobilenet_v1."""

    family: ClassVar[Family] = MOBILENET_V1

    dropout_rate: float = 0.001
    batch_norm_decay: float = 0.9997


def _holds(rule: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(rule(value))
    except (TypeError, ValueError, OverflowError):  # no number, or none that is finite
        return False


ACTIVATIONS = ("relu", "relu6")

_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "num_classes": ("a whole number above 0", lambda v: v == int(v) and v > 0),
    "input_shape": (
        "(height, width, 3) with sides of at least 32 pixels",
        lambda v: v == tuple(map(int, v)) and len(v) == 3 and v[2] == 3 and min(v[:2]) >= 32,
    ),
    "width_multiplier": ("a number above 0", lambda v: v > 0 and math.isfinite(v)),
    "dropout_rate": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "batch_norm_decay": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "batch_norm_epsilon": ("above 0", lambda v: v > 0),
    "weight_decay": ("at least 0", lambda v: v >= 0),
    "stddev": ("above 0", lambda v: v > 0),
    "activation_name": (
        f"None or one of {', '.join(ACTIVATIONS)}",
        lambda v: v is None or v in ACTIVATIONS,
    ),
    "classifier_activation": ("'softmax' or None", lambda v: v in ("softmax", None)),
}

CONFIGS: dict[str, type[MobileNetConfig]] = {
    config.family.name: config for config in (MobileNetV1Config,)
}


def model_names() -> tuple[str, ...]:
    return tuple(CONFIGS)


def make_config(name: str, **fields: Any) -> MobileNetConfig:
    """The configuration of the model `name`; fields that are None keep their default.

    Raises:
        UsageError: an unknown model, an unknown field or a wrong value.
    """
    if name not in CONFIGS:
        raise UsageError(f"unknown model {name!r}: there are {', '.join(CONFIGS)}")
    kind = CONFIGS[name]
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(fields) - known):
        raise UsageError(
            f"{kind.__name__} has no field {unknown[0]!r}: there are {', '.join(sorted(known))}"
        )
    return kind(**{key: value for key, value in fields.items() if value is not None})
