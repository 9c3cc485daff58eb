"""What the rows of a block table become: layers, under one configuration.

Layers carry the TF1 scopes below the model's scope, with '.' for '/' (`Conv2d_1_depthwise`,
`expanded_conv_3.squeeze_excite.Conv`, `Logits.Conv2d_1c_1x1`), so that a checkpoint's variable
finds its weight by name. Paddings are TensorFlow's SAME throughout, as in slim.
"""

from __future__ import annotations

import keras

from training.models.archs import (
    MOBILENET_V1,
    SQUEEZE_DIVISOR,
    Block,
    Bottleneck,
    Conv,
    FusedBottleneck,
    Pool,
    Separable,
)
from training.models.configs import MobileNetConfig
from training.models.layers import (
    DepthwiseConv,
    FusedBatchNorm,
    GatedProduct,
    HardSigmoid,
    HardSwish,
    NormActivation,
    PointwiseConv,
)

LOGITS = "Logits.Conv2d_1c_1x1"

_LARGEST_WINDOW = 7  # V1's average pooling: the feature map at 224 pixels


class Builder:
    """Turns rows of a block table into layers, under one configuration.

    What a layer is made of is in the small methods at the end, which the quantisation-aware builder
    replaces; what a block is made of is the same for both.
    """

    def __init__(self, config: MobileNetConfig):
        self._config = config
        self._family = config.family
        self._blocks = {
            Conv: self._conv,
            Separable: self._separable,
            Bottleneck: self._bottleneck,
            FusedBottleneck: self._bottleneck,
            Pool: self._pool,
        }
        self._norms: dict[str, FusedBatchNorm] = {}
        self._convs: dict[str, PointwiseConv] = {}  # those with a bias

    def block(self, inputs, name: str, block: Block):
        """The layers of one row."""
        return self._blocks[type(block)](inputs, name, block)

    def logits(self, inputs):
        """(batch, 1, 1, num_classes)."""
        return self.conv_bias(inputs, LOGITS, filters=self._config.num_classes)

    def _conv(self, inputs, name: str, block: Conv):
        filters = self._width(block)
        if block.norm:
            outputs = self.conv_norm(
                inputs, name, filters=filters, kernel=block.kernel, stride=block.stride
            )
        else:
            outputs = self.conv_bias(inputs, name, filters=filters)
        return self.activate(outputs, name, self._activation(block))

    def _separable(self, inputs, name: str, block: Separable):
        depthwise = f"{name}_depthwise"
        outputs = self.depthwise_norm(inputs, depthwise, kernel=block.kernel, stride=block.stride)
        outputs = self.activate(outputs, depthwise, self._activation(block))
        return self._conv(outputs, f"{name}_pointwise", Conv(1, 1, block.out, block.activation))

    def _bottleneck(self, inputs, name: str, block: Bottleneck | FusedBottleneck):
        in_channels = inputs.shape[-1]
        inner = self._family.width_of(in_channels * block.expansion)
        fused = isinstance(block, FusedBottleneck)
        outputs = inputs
        if inner > in_channels:
            expand = f"{name}.expand"
            kernel, stride = (block.kernel, block.stride) if fused else (1, 1)
            outputs = self.conv_norm(outputs, expand, filters=inner, kernel=kernel, stride=stride)
            outputs = self.activate(outputs, expand, self._activation(block))
        if not fused:
            depthwise = f"{name}.depthwise"
            outputs = self.depthwise_norm(
                outputs, depthwise, kernel=block.kernel, stride=block.stride
            )
            outputs = self.activate(outputs, depthwise, self._activation(block))
            if block.se:
                outputs = self._squeeze_excite(outputs, f"{name}.squeeze_excite")
        project = f"{name}.project"
        outputs = self.linear(self.conv_norm(outputs, project, filters=self._width(block)), project)
        if block.residual and block.stride == 1 and outputs.shape[-1] == in_channels:
            outputs = self.add(inputs, outputs, name)
        return outputs

    def _squeeze_excite(self, inputs, name: str):
        channels = inputs.shape[-1]
        squeeze, excite = f"{name}.Conv", f"{name}.Conv_1"
        inner = self._family.width_of(channels / SQUEEZE_DIVISOR)
        gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.pool")(inputs)
        gate = self.activate(self.conv_bias(gate, squeeze, filters=inner), squeeze, "relu")
        gate = self.conv_bias(gate, excite, filters=channels)
        return self.gate(inputs, gate, name)

    def _pool(self, inputs, name: str, block: Pool):
        """Averages over the feature map; for V1 slim's window of at most 7x7 at stride 2.

        On maps of 8x8, inputs of 225 to 256 pixels, that window covers the top left only. Beyond,
        where slim's V1 has no single output, all of the map is averaged.
        """
        del block
        height, width = inputs.shape[1:3]
        if self._family is MOBILENET_V1 and max(height, width) <= _LARGEST_WINDOW + 1:
            window = (min(height, _LARGEST_WINDOW), min(width, _LARGEST_WINDOW))
            return keras.layers.AveragePooling2D(window, strides=2, name=name)(inputs)
        return keras.layers.GlobalAveragePooling2D(keepdims=True, name=name)(inputs)

    def _activation(self, block: Block) -> str:
        return self._config.activation_name or block.activation

    def _width(self, block: Block) -> int:
        return self._family.channels(block, self._config.width_multiplier)

    def initializer(self) -> keras.initializers.Initializer:
        # A new object for each layer: one object gives every kernel of a shape the same values.
        return keras.initializers.TruncatedNormal(stddev=self._config.stddev)

    def conv_norm(self, inputs, name: str, *, filters: int, kernel: int = 1, stride: int = 1):
        """A convolution with batch norm."""
        norm = self._norm(name)
        options = {
            "padding": "same",
            "use_bias": False,
            "kernel_initializer": self.initializer(),
            "name": name,
        }
        if kernel == stride == 1:
            norm.in_channels = inputs.shape[-1]
            conv = PointwiseConv(filters, 1, folded=norm.folded_conv, **options)
        else:
            conv = keras.layers.Conv2D(filters, kernel, stride, **options)
        return norm(conv(inputs))

    def depthwise_norm(self, inputs, name: str, *, kernel: int, stride: int):
        """A depthwise convolution with batch norm."""
        outputs = DepthwiseConv(
            kernel,
            strides=stride,
            padding="same",
            use_bias=False,
            depthwise_initializer=self.initializer(),
            name=name,
        )(inputs)
        return self._norm(name)(outputs)

    def conv_bias(self, inputs, name: str, *, filters: int):
        """A 1x1 convolution with a bias and no batch norm."""
        conv = PointwiseConv(filters, 1, kernel_initializer=self.initializer(), name=name)
        self._convs[name] = conv
        return conv(inputs)

    def activate(self, inputs, name: str, activation: str):
        """An activation behind the layer `name`."""
        norm = self._norms.get(name)
        name = f"{name}.{activation}"
        if norm:
            norm.activation = activation
            return NormActivation(activation, norm.activates, name=name)(inputs)
        if activation == "hard_swish":
            return HardSwish(name=name)(inputs)
        return keras.layers.Activation(activation, name=name)(inputs)

    def linear(self, inputs, name: str):
        """What stands in the place of an activation behind a projection: nothing."""
        if name in self._norms:
            self._norms[name].activation = "linear"
        return inputs

    def add(self, shortcut, outputs, name: str):
        """The sum at the end of a residual block."""
        return keras.layers.Add(name=f"{name}.add")([shortcut, outputs])

    def gate(self, inputs, gate, name: str):
        """Squeeze-and-excite's product."""
        gate = HardSigmoid(name=f"{name}.gate")(gate)
        convs = self._convs[f"{name}.Conv"], self._convs[f"{name}.Conv_1"]
        norm = self._norms[f"{name.removesuffix('.squeeze_excite')}.depthwise"]  # in front
        norm.gate_weights = lambda: [it for conv in convs for it in (conv.kernel, conv.bias)]
        return GatedProduct(norm.gates, name=f"{name}.mul")([inputs, gate])

    def _norm(self, name: str) -> FusedBatchNorm:
        norm = FusedBatchNorm(
            self._config.batch_norm_decay,
            self._config.batch_norm_epsilon,
            name=f"{name}.BatchNorm",
        )
        self._norms[name] = norm
        return norm
