"""TF1 checkpoints into Keras models that compute the same logits.

from loaders import load_mobilenet_v1
from training.models import MobileNetV1Config

config = MobileNetV1Config(width_multiplier=0.25, input_shape=(128, 128, 3))
model = load_mobilenet_v1(checkpoint_path="mobilenet_v1_0.25_128.ckpt", config=config)
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from common.errors import UsageError, UserError
from loaders.mapping import WeightMapping, match
from loaders.tf1_checkpoint import Tf1Checkpoint
from training.models import (
    MobileNetConfig,
    MobileNetEdgeTPUConfig,
    MobileNetV1Config,
    MobileNetV2Config,
    MobileNetV3LargeConfig,
    MobileNetV3LargeMinimalisticConfig,
    MobileNetV3SmallConfig,
    MobileNetV3SmallMinimalisticConfig,
    build_model,
)
from training.models.mobilenet import weights_of

WEIGHT_SETS = ("averages", "raw")


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """What a checkpoint holds.

    Attributes:
        raw: the weights by name.
        averages: moving averages by name, of those weights that have one.
        step: of the training that wrote them.
        mapping: where each came from, for a TF1 checkpoint.
    """

    raw: dict[str, np.ndarray]
    averages: dict[str, np.ndarray]
    step: int = 0
    mapping: WeightMapping | None = None

    def choose(self, weights: str) -> dict[str, np.ndarray]:
        """All weights: 'averages' (of a weight that has none, the weight itself) or 'raw'."""
        if weights not in WEIGHT_SETS:
            raise UsageError(f"weights must be one of {', '.join(WEIGHT_SETS)}, not {weights!r}")
        return {**self.raw, **self.averages} if weights == "averages" else self.raw

    def chosen(self, weights: str) -> str:
        """Which set `choose` gives: 'raw' where there are no averages."""
        return weights if self.averages else "raw"


def load_mobilenet_v1(
    checkpoint_path: str, config: MobileNetV1Config | None = None, weights: str = "averages"
) -> keras.Model:
    """Builds MobileNetV1 and fills it from a TF1 checkpoint; see `load`."""
    return load(checkpoint_path, config or MobileNetV1Config(), weights, (MobileNetV1Config,))


def load_mobilenet_v2(
    checkpoint_path: str, config: MobileNetV2Config | None = None, weights: str = "averages"
) -> keras.Model:
    """Builds MobileNetV2 and fills it from a TF1 checkpoint; see `load`."""
    return load(checkpoint_path, config or MobileNetV2Config(), weights, (MobileNetV2Config,))


def load_mobilenet_v3_small(
    checkpoint_path: str,
    config: MobileNetV3SmallConfig | MobileNetV3SmallMinimalisticConfig | None = None,
    weights: str = "averages",
) -> keras.Model:
    """Builds MobileNetV3-Small, minimalistic by its config, and fills it; see `load`."""
    kinds = (MobileNetV3SmallConfig, MobileNetV3SmallMinimalisticConfig)
    return load(checkpoint_path, config or MobileNetV3SmallConfig(), weights, kinds)


def load_mobilenet_v3_large(
    checkpoint_path: str,
    config: MobileNetV3LargeConfig | MobileNetV3LargeMinimalisticConfig | None = None,
    weights: str = "averages",
) -> keras.Model:
    """Builds MobileNetV3-Large, minimalistic by its config, and fills it; see `load`."""
    kinds = (MobileNetV3LargeConfig, MobileNetV3LargeMinimalisticConfig)
    return load(checkpoint_path, config or MobileNetV3LargeConfig(), weights, kinds)


def load_mobilenet_edgetpu(
    checkpoint_path: str, config: MobileNetEdgeTPUConfig | None = None, weights: str = "averages"
) -> keras.Model:
    """Builds MobileNetEdgeTPU and fills it from a TF1 checkpoint; see `load`."""
    kinds = (MobileNetEdgeTPUConfig,)
    return load(checkpoint_path, config or MobileNetEdgeTPUConfig(), weights, kinds)


def load(
    checkpoint_path: str,
    config: MobileNetConfig,
    weights: str,
    kinds: tuple[type[MobileNetConfig], ...],
) -> keras.Model:
    """Builds the model that `config` describes and fills it from a TF1 checkpoint.

    Args:
        checkpoint_path: the checkpoint's prefix, without '.index'.
        config: the architecture; the default of each loader is width 1.0 at 224 pixels with 1001
            outputs.
        weights: 'averages' (of a weight that has none, the weight itself) or 'raw'.
        kinds: the configuration classes that the caller loads.

    Raises:
        UserError: the checkpoint cannot be read, or does not fit the configuration exactly.
    """
    if type(config) not in kinds:
        raise UsageError(
            f"this loader needs a {' or '.join(kind.__name__ for kind in kinds)}, not"
            f" {type(config).__name__}"
        )
    checkpoint = Tf1Checkpoint(checkpoint_path)
    model = build_model(config)
    stored = read_weights(checkpoint, model, config)
    fill(model, stored.choose(weights), checkpoint.path)
    return model


def fill(model: keras.Model, values: dict[str, np.ndarray], what: str) -> None:
    """Assigns all weights of `model` by name.

    Raises:
        UserError: names or shapes differ; nothing is assigned then.
    """
    variables = weights_of(model)
    if missing := sorted(set(variables) - set(values)):
        raise UserError(f"checkpoint {what} has no weight {missing[0]}, which the model needs")
    for name, variable in variables.items():
        if tuple(variable.shape) != values[name].shape:
            raise UserError(
                f"checkpoint {what} has {name} of shape {values[name].shape}, but the model needs"
                f" {tuple(variable.shape)}"
            )
    for name, variable in variables.items():
        variable.assign(values[name])


def read_weights(
    checkpoint: Tf1Checkpoint, model: keras.Model, config: MobileNetConfig
) -> StoredWeights:
    """The values for all weights of `model`.

    Raises:
        UserError: the checkpoint does not fit the model exactly, or is damaged.
    """
    shapes = {name: tuple(variable.shape) for name, variable in weights_of(model).items()}
    head = set()
    if not config.include_top:
        head = set(weights_of(build_model(config.replace(include_top=True)))) - set(shapes)
    try:
        mapping = match(
            shapes, checkpoint.shapes, config.family.scope, f"checkpoint {checkpoint.path}", head
        )
    except UserError as error:
        raise UserError(
            f"{error} ({config.name} at width {config.width_multiplier:g} with"
            f" {config.num_classes} outputs); {checkpoint.looks_like()}"
        ) from None
    return StoredWeights(
        raw={name: checkpoint.read(source) for name, source in mapping.raw.items()},
        averages={name: checkpoint.read(source) for name, source in mapping.averages.items()},
        step=checkpoint.step(),
        mapping=mapping,
    )
