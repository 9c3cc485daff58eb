"""One builder for all families: a block table in, a Keras model out.

Layers carry the TF1 scopes below the model's scope, with '.' for '/' (`Conv2d_1_depthwise`,
`Conv2d_1_depthwise.BatchNorm`, `Logits.Conv2d_1c_1x1`), so that a checkpoint's variable finds its
weight by name. Paddings are TensorFlow's SAME throughout, as in slim.
"""

from __future__ import annotations

import keras

from training.models.archs import Conv, MobileNetConfig, Separable
from training.models.layers import FusedBatchNorm

LOGITS = "Logits.Conv2d_1c_1x1"

_LARGEST_WINDOW = 7  # V1's average pooling, the feature map at 224 pixels


def build_model(config: MobileNetConfig) -> keras.Model:
    """Builds the model that `config` describes.

    The input is (batch, height, width, 3) float32 in [-1, 1], RGB; the output (batch, num_classes)
    probabilities, or logits where `classifier_activation` is None.
    """
    images = keras.Input(config.input_shape, name="images")
    features = images
    for block in config.family.blocks:
        features = _BLOCKS[type(block)](features, block, config)
    features = _pool(features)
    features = keras.layers.Dropout(config.dropout_rate, seed=0, name="Dropout")(features)
    logits = _conv(features, LOGITS, config, filters=config.num_classes, kernel=1, bias=True)
    outputs = keras.layers.Flatten(name="logits")(logits)
    if config.classifier_activation:
        outputs = keras.layers.Activation(config.classifier_activation, name="probabilities")(
            outputs
        )
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
    return {f"{layer.name}.kernel" for layer in model.layers if type(layer) is keras.layers.Conv2D}


def _conv_block(inputs, block: Conv, config: MobileNetConfig):
    filters = config.family.round_width(block.out, config.width_multiplier)
    outputs = _conv(
        inputs, block.name, config, filters=filters, kernel=block.kernel, stride=block.stride
    )
    return _normalise_and_activate(outputs, block.name, config)


def _separable_block(inputs, block: Separable, config: MobileNetConfig):
    depthwise = f"{block.name}_depthwise"
    outputs = keras.layers.DepthwiseConv2D(
        block.kernel,
        strides=block.stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_kernel_initializer(config),
        name=depthwise,
    )(inputs)
    outputs = _normalise_and_activate(outputs, depthwise, config)
    pointwise = Conv(f"{block.name}_pointwise", kernel=1, stride=1, out=block.out)
    return _conv_block(outputs, pointwise, config)


_BLOCKS = {Conv: _conv_block, Separable: _separable_block}


def _conv(inputs, name, config, *, filters, kernel, stride=1, bias=False):
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=bias,
        kernel_initializer=_kernel_initializer(config),
        name=name,
    )(inputs)


def _kernel_initializer(config: MobileNetConfig) -> keras.initializers.Initializer:
    # A new object for each layer: one object gives every kernel of a shape the same values.
    return keras.initializers.TruncatedNormal(stddev=config.stddev)


def _normalise_and_activate(inputs, name, config):
    outputs = FusedBatchNorm(
        config.batch_norm_decay, config.batch_norm_epsilon, name=f"{name}.BatchNorm"
    )(inputs)
    activation = config.activation_name or config.family.activation
    return keras.layers.Activation(activation, name=f"{name}.{activation}")(outputs)


def _pool(features):
    """Averages over the feature map.

    As in slim, a window of at most 7x7, which for maps of 8x8 (inputs of 225 to 256 pixels) covers
    the top left only. Beyond, where slim's model has no single output, all of the map is averaged.
    """
    height, width = features.shape[1:3]
    if max(height, width) <= _LARGEST_WINDOW + 1:
        window = (min(height, _LARGEST_WINDOW), min(width, _LARGEST_WINDOW))
        return keras.layers.AveragePooling2D(window, strides=2, name="AvgPool_1a")(features)
    return keras.layers.GlobalAveragePooling2D(keepdims=True, name="AvgPool_1a")(features)
