"""TF1 checkpoints into Keras models that compute the same logits.

from loaders import load_mobilenet_v1
from training.models import MobileNetV1Config

config = MobileNetV1Config(width_multiplier=0.25, input_shape=(128, 128, 3))
model = load_mobilenet_v1(checkpoint_path="mobilenet_v1_0.25_128.ckpt", config=config)
"""

from __future__ import annotations

import keras
import numpy as np

from common.errors import UsageError, UserError
from loaders.mapping import WeightMapping, match
from loaders.tf1_checkpoint import Tf1Checkpoint
from training.models import MobileNetConfig, MobileNetV1Config, build_model
from training.models.mobilenet import weights_of

WEIGHT_SETS = ("averages", "raw")


def load_mobilenet_v1(
    checkpoint_path: str, config: MobileNetV1Config | None = None, weights: str = "averages"
) -> keras.Model:
    """Builds MobileNetV1 and fills it from a TF1 checkpoint.

    Args:
        checkpoint_path: the checkpoint's prefix, without '.index'.
        config: the architecture; by default width 1.0 at 224 pixels with 1001 outputs.
        weights: 'averages' (of a weight that has none, the weight itself) or 'raw'.

    Raises:
        UserError: the checkpoint cannot be read, or does not fit the configuration exactly.
    """
    config = config or MobileNetV1Config()
    if not isinstance(config, MobileNetV1Config):
        raise UsageError(
            f"load_mobilenet_v1 needs a MobileNetV1Config, not {type(config).__name__}"
        )
    model = build_model(config)
    values, _ = read_weights(Tf1Checkpoint(checkpoint_path), model, config, weights)
    for name, variable in weights_of(model).items():
        variable.assign(values[name])
    return model


def read_weights(
    checkpoint: Tf1Checkpoint, model: keras.Model, config: MobileNetConfig, weights: str
) -> tuple[dict[str, np.ndarray], WeightMapping]:
    """The values for all weights of `model` by name, and where each came from.

    Raises:
        UserError: the checkpoint does not fit the model exactly, or is damaged.
    """
    if weights not in WEIGHT_SETS:
        raise UsageError(f"weights must be one of {', '.join(WEIGHT_SETS)}, not {weights!r}")
    shapes = {name: tuple(variable.shape) for name, variable in weights_of(model).items()}
    try:
        mapping = match(
            shapes, checkpoint.shapes, config.family.scope, weights, f"checkpoint {checkpoint.path}"
        )
    except UserError as error:
        raise UserError(
            f"{error} ({config.name} at width {config.width_multiplier:g} with"
            f" {config.num_classes} outputs); {checkpoint.looks_like()}"
        ) from None
    return {name: checkpoint.read(source) for name, source in mapping.sources.items()}, mapping
