"""The deployment model: what is shipped, of Keras' own layers alone.

It computes what the training model computes at inference, in fewer and plainer layers: batch norm
is folded into the convolution in front of it, dropout is left out, what stands behind the pooling
is dense. So a `.keras` file opens without this project, and every converter knows every layer.
Layers keep their names: the convolution `X` gives what the training model's `X.BatchNorm` gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from training.models.builder import Builder
from training.models.configs import MobileNetConfig
from training.models.mobilenet import weights_of

# Squeeze-and-excite's gate is relu6(x + 3) * 0.16667, see `training.models.layers`.
_GATE_SHIFT, _GATE_FACTOR = 3.0, 0.16667


@dataclasses.dataclass(frozen=True)
class _Fold:
    """What a layer's weights take up of the layers around it.

    Attributes:
        norm: the batch norm behind it.
        factor: of its input.
        shift: of its output.
    """

    norm: bool = False
    factor: float = 1.0
    shift: float = 0.0


class _DeploymentBuilder(Builder):
    """Builds the same blocks from Keras' own layers, and notes what is folded into which."""

    def __init__(self, config: MobileNetConfig):
        super().__init__(config)
        self.folds: dict[str, _Fold] = {}
        self._factors: dict[int, float] = {}  # by id of a symbolic tensor; the model keeps it alive

    def conv_norm(self, inputs, name, *, filters, kernel=1, stride=1):
        self.folds[name] = _Fold(norm=True, factor=self._factors.get(id(inputs), 1.0))
        layer = keras.layers.Conv2D(filters, kernel, strides=stride, padding="same", name=name)
        return layer(inputs)

    def depthwise_norm(self, inputs, name, *, kernel, stride):
        self.folds[name] = _Fold(norm=True)
        layer = keras.layers.DepthwiseConv2D(kernel, strides=stride, padding="same", name=name)
        return layer(inputs)

    def conv_bias(self, inputs, name, *, filters):
        self.folds[name] = _Fold()
        if len(inputs.shape) == 2:
            return keras.layers.Dense(filters, name=name)(inputs)
        return keras.layers.Conv2D(filters, 1, name=name)(inputs)

    def activate(self, inputs, name, activation):
        return keras.layers.Activation(activation, name=f"{name}.{activation}")(inputs)

    def gate(self, inputs, gate, name):
        """The product; relu6 is all that is left between the convolutions around it."""
        self.folds[f"{name}.Conv_1"] = _Fold(shift=_GATE_SHIFT)
        gate = keras.layers.Activation("relu6", name=f"{name}.gate.relu6")(gate)
        product = keras.layers.Multiply(name=f"{name}.mul.unscaled")([inputs, gate])
        self._factors[id(product)] = _GATE_FACTOR
        return product

    def _pool(self, inputs, name, block):
        pooled = super()._pool(inputs, name, block)  # (batch, 1, 1, channels)
        if isinstance(pooled._keras_history.operation, keras.layers.GlobalAveragePooling2D):
            return keras.layers.GlobalAveragePooling2D(name=name)(inputs)
        # Flatten would become three more operators in LiteRT, to find out the batch size.
        return keras.layers.GlobalAveragePooling2D(name=f"{name}.flat")(pooled)


def build_deployment_model(model: keras.Model, config: MobileNetConfig) -> keras.Model:
    """The deployment model of a training model.

    Args:
        model: built from `config` by `training.models.build_model`, with its weights.
        config: its configuration, with top and without quantisation-aware parts.

    Returns:
        A model from `images`, (batch, height, width, 3) float32, to logits, (batch, num_classes).
    """
    if config.quantization_aware or not config.include_top:
        raise ValueError("a deployment model is made of a float classifier")
    builder = _DeploymentBuilder(config)
    images = features = keras.Input(config.input_shape, name="images")
    for name, block in config.family.named_blocks():
        features = builder.block(features, name, block)
    deployed = keras.Model(images, builder.logits(features), name=config.family.scope)
    values = {name: np.asarray(variable) for name, variable in weights_of(model).items()}
    for name, fold in builder.folds.items():
        layer = deployed.get_layer(name)
        kernel, bias = _folded(name, fold, values, config.batch_norm_epsilon)
        layer.set_weights([kernel.reshape(layer.kernel.shape), bias])
    return deployed


def _folded(
    name: str, fold: _Fold, values: Mapping[str, np.ndarray], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the layer `name`, float32, computed in float64."""
    kernel = values[f"{name}.kernel"].astype(np.float64) * fold.factor
    if not fold.norm:
        bias = values[f"{name}.bias"] + fold.shift
        return kernel.astype(np.float32), bias.astype(np.float32)
    gamma, beta, mean, variance = (
        values[f"{name}.BatchNorm.{part}"].astype(np.float64)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + epsilon)
    # The channels of an ordinary kernel come last; those of a depthwise one have a 1 behind them.
    kernel *= scale if kernel.shape[-1] == len(scale) else scale[:, np.newaxis]
    return kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)
