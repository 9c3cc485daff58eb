"""The few layers of our own."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from training.augmentation import purposes
from training.models import clusters
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
        synchronized: the moments are those of the global batch, over all replicas; see
            `set_batch_norm_synchronized`.
    """

    def __init__(self, decay: float, epsilon: float, **kwargs):
        super().__init__(**kwargs)
        self.decay = decay
        self.epsilon = epsilon
        self.activation: str | None = None
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
        if self._is_synchronized():
            outputs, mean, variance = self._over_replicas(inputs)
        elif self.in_cluster(inputs):
            outputs, mean, variance = clusters.norm_activation(
                inputs, self.gamma.value, self.beta.value, self.epsilon, self.activation
            )
            variance *= _unbiased(inputs)
        else:
            no_moments = tf.zeros([0])  # the kernel computes those of the batch
            outputs, mean, variance = self._fused(inputs, no_moments, no_moments, is_training=True)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_add((batch - moving.value) * (1.0 - self.decay))
        return outputs

    def in_cluster(self, inputs) -> bool:
        """Whether training on `inputs` does the activation as well."""
        return (
            self.activation is not None
            and not self._is_synchronized()
            and clusters.pays(inputs, self.activation)
        )

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
class NormActivation(keras.layers.Activation):
    """The activation behind a batch norm; lets pass what that layer has activated already.

    Args:
        activation: its name.
        in_cluster: whether the batch norm in front activates in training, `FusedBatchNorm`'s method
            (the layer itself would be tracked as a part of this one, weights and all).
    """

    def __init__(self, activation, in_cluster: Callable[[tf.Tensor], bool] | None = None, **kwargs):
        super().__init__(hard_swish if activation == "hard_swish" else activation, **kwargs)
        self._in_cluster = in_cluster

    def call(self, inputs, training=False):
        if training and self._in_cluster and self._in_cluster(inputs):
            return inputs
        return super().call(inputs)


@keras.saving.register_keras_serializable("mobilenet_pipeline")
def hard_swish(inputs):
    """Computes x * relu6(x + 3) / 6 from left to right, as slim does."""
    return inputs * tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class HardSwish(keras.layers.Layer):
    """`hard_swish` where no batch norm stands in front."""

    def call(self, inputs):
        return hard_swish(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class HardSigmoid(keras.layers.Layer):
    """The gate of squeeze-and-excite: relu6(x + 3) * 0.16667.

    The five digits are slim's; with 1/6 the logits of its checkpoints move by up to 1e-3.
    """

    def call(self, inputs):
        return tf.nn.relu6(inputs + 3.0) * 0.16667

    def compute_output_shape(self, input_shape):
        return input_shape


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
