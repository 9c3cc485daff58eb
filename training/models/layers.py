"""The few layers of our own."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from training.augmentation import purposes
from training.models import clusters, cpu, folded, squeeze_excite
from training.models.depthwise import depthwise_conv
from training.models.hard_swish import hard_swish
from training.models.pointwise import pointwise_conv
from training.models.squeeze_excite import hard_sigmoid
from training.randomness import uniform


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class FusedBatchNorm(keras.layers.Layer):
    """Batch normalisation by TensorFlow's fused kernel.

    Keras' own layer computes moments and scaling as a dozen separate ops; one fused op does the
    same 1.2 to 1.4 times as fast. As in slim, the moving variance takes up the unbiased variance of
    the batch (Keras: the biased one). Scale, offset and statistics are float32 whatever the inputs.

    Args:
        decay: how much of the moving statistics is kept at a step.
        epsilon: added to the variance.

    Attributes:
        activation: that of the `NormActivation` behind, which this layer does as well in training
            where the two are one cluster ('linear': nothing behind). None for no cluster at all;
            the model's builder sets it.
        in_channels: those of the pointwise convolution in front, which does this layer's work as
            well in training where that pays. None for no such convolution; the builder sets it.
        gate_weights: returns kernel and bias of the two convolutions of the squeeze-and-excite
            behind the activation, which this layer does as well in training where that pays. None
            where there is none; the builder sets it.
        synchronized: the moments are those of the global batch, over all replicas; see
            `set_batch_norm_synchronized`.
    """

    def __init__(self, decay: float, epsilon: float, **kwargs):
        super().__init__(**kwargs)
        self.decay = decay
        self.epsilon = epsilon
        self.activation: str | None = None
        self.in_channels: int | None = None
        self.gate_weights: Callable | None = None
        self.synchronized = False

    def build(self, input_shape):
        for name, start, trainable in (
            ("gamma", "ones", True),
            ("beta", "zeros", True),
            ("moving_mean", "zeros", False),
            ("moving_variance", "ones", False),
        ):
            weight = self.add_weight(
                name=name,
                shape=(input_shape[-1],),
                initializer=start,
                trainable=trainable,
                autocast=False,
            )
            setattr(self, name, weight)

    def call(self, inputs, training=False):
        """Normalises `inputs`, (batch, height, width, channels), over all axes but the last."""
        if not training:
            return self._fused(
                inputs, self.moving_mean.value, self.moving_variance.value, is_training=False
            )[0]
        if self._folds(inputs):
            return inputs
        if self._is_synchronized():
            outputs, mean, variance = self._over_replicas(inputs)
        elif self.gates(inputs):
            outputs, mean, variance = squeeze_excite.norm_activation_gate(
                inputs,
                self.gamma.value,
                self.beta.value,
                self.epsilon,
                self.activation,
                self.gate_weights(),
            )
            variance *= _unbiased(inputs)
        elif self.activates(inputs):
            outputs, mean, variance = clusters.norm_activation(
                inputs, self.gamma.value, self.beta.value, self.epsilon, self.activation
            )
            variance *= _unbiased(inputs)
        else:
            no_moments = tf.zeros([0])  # the kernel computes those of the batch
            outputs, mean, variance = self._fused(inputs, no_moments, no_moments, is_training=True)
        self._take_up(mean, variance)
        return outputs

    def folded_conv(self, inputs, kernel) -> tf.Tensor | None:
        """What the pointwise convolution in front, this layer and the activation make of `inputs`.

        None where they had better be computed one by one.

        Args:
            inputs: (batch, height, width, in_channels).
            kernel: (1, 1, in_channels, channels).
        """
        if not self._folds(inputs):
            return None
        outputs, mean, variance = folded.conv_norm_activation(
            inputs, kernel, self.gamma.value, self.beta.value, self.epsilon, self.activation
        )
        self._take_up(mean, variance * _unbiased(inputs))
        return outputs

    def activates(self, inputs) -> bool:
        """Whether in training `inputs` are activated here, or have been before."""
        clustered = (
            self.activation is not None
            and not self._is_synchronized()
            and clusters.pays(inputs, self.activation)
        )
        return clustered or self._folds(inputs)

    def gates(self, inputs) -> bool:
        """Whether in training squeeze-and-excite is computed here; `inputs` as its own."""
        return (
            self.gate_weights is not None
            and self.activation is not None
            and not self._is_synchronized()
            and squeeze_excite.pays(inputs, self.activation)
        )

    def _folds(self, inputs) -> bool:
        """Whether the convolution in front does it all; `inputs` are its own or its outputs."""
        return (
            self.in_channels is not None
            and not self._is_synchronized()
            and folded.pays(inputs, self.in_channels, self.gamma.shape[0], self.activation)
        )

    def _take_up(self, mean, variance) -> None:
        """Moves the moving statistics towards the batch's mean and unbiased variance."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_add((batch - moving.value) * (1.0 - self.decay))

    def compute_output_shape(self, input_shape):
        # Without it Keras traces each layer in a graph of its own, most of a model's building time.
        return input_shape

    def _is_synchronized(self) -> bool:
        return self.synchronized and tf.distribute.get_strategy().num_replicas_in_sync > 1

    def _over_replicas(self, inputs):
        """The same from moments that all replicas share; gradients flow through them."""
        context = tf.distribute.get_replica_context()
        values = tf.cast(inputs, tf.float32)
        mean = context.all_reduce("MEAN", tf.reduce_mean(values, [0, 1, 2]))
        # In two passes: the difference of a mean of squares and a squared mean would lose digits.
        squares = tf.math.squared_difference(values, mean)
        variance = context.all_reduce("MEAN", tf.reduce_mean(squares, [0, 1, 2]))
        scale = self.gamma.value * tf.math.rsqrt(variance + self.epsilon)
        outputs = tf.cast((values - mean) * scale + self.beta.value, inputs.dtype)
        return outputs, mean, variance * _unbiased(inputs, context.num_replicas_in_sync)

    def _fused(self, inputs, mean, variance, is_training):
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )[:3]

    def get_config(self):
        return {**super().get_config(), "decay": self.decay, "epsilon": self.epsilon}


def _unbiased(inputs, replicas: int = 1):
    """What makes the biased variance of the channels of `inputs` unbiased; 1 for a single value."""
    count = tf.cast(replicas * tf.size(inputs[..., 0]), tf.float32)
    return count / tf.maximum(count - 1.0, 1.0)


def set_batch_norm_synchronized(model: keras.Model, synchronized: bool) -> None:
    """Whether batch norm takes its moments over all replicas; to be said before tracing."""
    for layer in model.layers:
        if isinstance(layer, FusedBatchNorm):
            layer.synchronized = synchronized


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class PointwiseConv(keras.layers.Conv2D):
    """A 1x1 convolution of stride 1; in training on a CPU, a matrix product.

    Args:
        folded: `FusedBatchNorm.folded_conv` of the layer behind, which computes both at once.
    """

    def __init__(self, *args, folded: Callable | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self._folded = folded

    def call(self, inputs, training=False):
        if not training or not cpu.suits(inputs):
            return super().call(inputs)
        kernel = tf.convert_to_tensor(self.kernel)
        outputs = self._folded(inputs, kernel) if self._folded else None
        if outputs is None:
            outputs = pointwise_conv(inputs, kernel)
            if self.use_bias:
                outputs = tf.nn.bias_add(outputs, self.bias)
        return outputs


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class DepthwiseConv(keras.layers.DepthwiseConv2D):
    """A depthwise convolution whose gradients take the quicker kernels in training on a CPU."""

    def call(self, inputs, training=False):
        if not training or not cpu.suits(inputs):
            return super().call(inputs)
        return depthwise_conv(inputs, self.kernel, self.strides[0])


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class NormActivation(keras.layers.Activation):
    """The activation behind a batch norm; lets pass what that layer has activated already.

    Args:
        activation: its name.
        activated: whether its inputs are activated in training, `FusedBatchNorm.activates` of the
            layer in front (the layer itself would be tracked as a part of this one, weights and
            all).
    """

    def __init__(self, activation, activated: Callable[[tf.Tensor], bool] | None = None, **kwargs):
        super().__init__(hard_swish if activation == "hard_swish" else activation, **kwargs)
        self._activated = activated

    def call(self, inputs, training=False):
        if training and self._activated and self._activated(inputs):
            return inputs
        return super().call(inputs)


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class HardSwish(keras.layers.Layer):
    """`hard_swish` where no batch norm stands in front."""

    def call(self, inputs):
        return hard_swish(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class HardSigmoid(keras.layers.Layer):
    """The gate of squeeze-and-excite."""

    def call(self, inputs):
        return hard_sigmoid(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class GatedProduct(keras.layers.Multiply):
    """Squeeze-and-excite's product of features and gate; lets pass features that are gated already.

    The gate is then computed for nothing, and TensorFlow leaves it out of the graph.

    Args:
        gated: whether the features are gated in training, `FusedBatchNorm.gates` of the layer in
            front (the layer itself would be tracked as a part of this one, weights and all).
    """

    def __init__(self, gated: Callable[[tf.Tensor], bool] | None = None, **kwargs):
        super().__init__(**kwargs)
        self._gated = gated

    def call(self, inputs, training=False):
        """The product of `inputs`, (batch, h, w, channels) and (batch, 1, 1, channels)."""
        features, _ = inputs
        if training and self._gated and self._gated(features):
            return features
        return super().call(inputs)

    def compute_output_spec(self, inputs, training=False):
        return super().compute_output_spec(inputs)


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class ExampleDropout(keras.layers.Layer):
    """Dropout whose mask is a pure function of the example.

    Within `example_noise(keys)` an example's mask depends on its key alone: not on the replica, on
    the batch or on the steps before, so that there is no state to keep. Elsewhere, as in Keras'
    `fit`, masks are drawn from TensorFlow's generator.

    Args:
        rate: part of the features that is dropped; the others are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, inputs, training=False):
        """Drops from `inputs`, (batch, ...)."""
        if not training or not self.rate:
            return inputs
        keys = getattr(_noise, "keys", None)
        if keys is None:
            drawn = tf.random.uniform(tf.shape(inputs))
        else:
            drawn = uniform(keys, purposes.DROPOUT, math.prod(inputs.shape[1:]))
            drawn = tf.reshape(drawn, tf.shape(inputs))
        return tf.where(drawn < self.rate, tf.zeros_like(inputs), inputs / (1.0 - self.rate))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


_noise = threading.local()


@contextlib.contextmanager
def example_noise(keys: tf.Tensor) -> Iterator[None]:
    """Draws what models draw at random from the examples' keys, (batch, 2) uint32.

    It holds for the thread, since replicas are traced in threads of their own.
    """
    before = getattr(_noise, "keys", None)
    _noise.keys = keys
    try:
        yield
    finally:
        _noise.keys = before
