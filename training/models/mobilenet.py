"""One builder for all families: a block table in, a Keras model out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from training.models.archs import Pool
from training.models.builder import Builder
from training.models.configs import MobileNetConfig
from training.models.layers import ExampleDropout
from training.models.quantized import QuantizedBuilder

_ENDPOINTS = {4: "C2", 8: "C3", 16: "C4", 32: "C5"}  # by stride, as detectors call them


def build_model(config: MobileNetConfig) -> keras.Model:
    """Builds the model that `config` describes.

    The input is (batch, height, width, 3) float32 in [-1, 1], RGB; the output (batch, num_classes)
    probabilities, or logits where `classifier_activation` is None. A model without top gives a
    dictionary of feature maps instead, for detection and segmentation: 'C2' to 'C5', the last ones
    at a stride of 4, 8, 16 and 32 pixels.
    """
    if not config.quantization_aware:
        return _assemble(config, Builder(config))
    with _computed_in_float32():
        return _assemble(config, QuantizedBuilder(config))


@contextlib.contextmanager
def _computed_in_float32() -> Iterator[None]:
    """Overrules Keras' policy: half precision would round the 256 values of a range once more."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def _assemble(config: MobileNetConfig, builder: Builder) -> keras.Model:
    images = keras.Input(config.input_shape, name="images")
    features, endpoints, stride = images, {}, 1
    for name, block in config.family.named_blocks():
        if isinstance(block, Pool) and not config.include_top:
            return keras.Model(images, endpoints, name=config.family.scope)
        features = builder.block(features, name, block)
        stride *= getattr(block, "stride", 1)
        if stride in _ENDPOINTS:
            endpoints[_ENDPOINTS[stride]] = features
    features = ExampleDropout(config.dropout_rate, name="Dropout")(features)
    # The loss is float32 under mixed precision too.
    outputs = keras.layers.Flatten(name="logits", dtype="float32")(builder.logits(features))
    if config.classifier_activation:
        outputs = keras.layers.Activation(
            config.classifier_activation, name="probabilities", dtype="float32"
        )(outputs)
    return keras.Model(images, outputs, name=config.family.scope)


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Every variable of `model` by the name of its layer and its own: 'Conv2d_0.kernel'."""
    return {
        f"{layer.name}.{variable.name}": variable
        for layer in model.layers
        for variable in layer.variables
    }


def weights_of(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables that make the model's output: all but the state of random generators."""
    return {
        name: variable
        for name, variable in named_variables(model).items()
        if variable.dtype == "float32"
    }


def decayed_kernels(model: keras.Model) -> set[str]:
    """Names of the kernels that weight decay applies to: ordinary convolutions, as in slim."""
    return {
        f"{layer.name}.kernel"
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) or getattr(layer, "decayed", False)
    }
