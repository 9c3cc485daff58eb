"""The configuration classes: one for each family, with its own defaults."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

from common.errors import UsageError
from training.models import archs
from training.models.archs import Family


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
        activation_name: one activation for the whole model, or None for those of the block table.
        classifier_activation: 'softmax' for probabilities, None for logits.
        include_top: with pooling, dropout and logits; without, the model is a feature extractor,
            see `training.models.build_model`.
        quantization_aware: weights and activations go through 8-bit fake quantisation, batch norm
            is folded; see `training.models.quantized`.
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
    include_top: bool = True
    quantization_aware: bool = False

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
    """MobileNetV1, Howard et al., arXiv:1704.04861; defaults of slim's mobilenet_v1."""

    family: ClassVar[Family] = archs.MOBILENET_V1

    dropout_rate: float = 0.001
    batch_norm_decay: float = 0.9997


@dataclasses.dataclass(frozen=True)
class MobileNetV2Config(MobileNetConfig):
    """MobileNetV2, Sandler et al., arXiv:1801.04381; defaults of slim's mobilenet_v2."""

    family: ClassVar[Family] = archs.MOBILENET_V2


@dataclasses.dataclass(frozen=True)
class MobileNetV3LargeConfig(MobileNetConfig):
    """MobileNetV3-Large, Howard et al., arXiv:1905.02244; weight decay and stddev of its recipe."""

    family: ClassVar[Family] = archs.MOBILENET_V3_LARGE

    weight_decay: float = 1e-5
    stddev: float = 0.008


@dataclasses.dataclass(frozen=True)
class MobileNetV3SmallConfig(MobileNetV3LargeConfig):
    """MobileNetV3-Small, Howard et al., arXiv:1905.02244."""

    family: ClassVar[Family] = archs.MOBILENET_V3_SMALL


@dataclasses.dataclass(frozen=True)
class MobileNetV3LargeMinimalisticConfig(MobileNetV3LargeConfig):
    """MobileNetV3-Large without hard-swish, squeeze-and-excite and 5x5 kernels."""

    family: ClassVar[Family] = archs.MOBILENET_V3_LARGE_MINIMALISTIC


@dataclasses.dataclass(frozen=True)
class MobileNetV3SmallMinimalisticConfig(MobileNetV3LargeConfig):
    """MobileNetV3-Small without hard-swish, squeeze-and-excite and 5x5 kernels."""

    family: ClassVar[Family] = archs.MOBILENET_V3_SMALL_MINIMALISTIC


@dataclasses.dataclass(frozen=True)
class MobileNetEdgeTPUConfig(MobileNetV3LargeConfig):
    """MobileNetEdgeTPU, as slim defines it; trained like V3."""

    family: ClassVar[Family] = archs.MOBILENET_EDGETPU


def _holds(rule: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(rule(value))
    except (TypeError, ValueError, OverflowError):  # no number, or none that is finite
        return False


ACTIVATIONS = ("relu", "relu6", "hard_swish")

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
    "include_top": ("True or False", lambda v: isinstance(v, bool)),
    "quantization_aware": ("True or False", lambda v: isinstance(v, bool)),
    "classifier_activation": ("'softmax' or None", lambda v: v in ("softmax", None)),
}

CONFIGS: dict[str, type[MobileNetConfig]] = {
    config.family.name: config
    for config in (
        MobileNetV1Config,
        MobileNetV2Config,
        MobileNetV3SmallConfig,
        MobileNetV3LargeConfig,
        MobileNetV3SmallMinimalisticConfig,
        MobileNetV3LargeMinimalisticConfig,
        MobileNetEdgeTPUConfig,
    )
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
