"""Squeeze-and-excite with the batch norm and activation in front as one cluster, on a CPU.

The features reach the output twice, as themselves and through their average. Op by op a training
step goes over the map twenty-one times for the three layers. Here neither the normalised map nor
the features are ever written: they are computed from the batch norm's inputs as often as they are
needed, for the features' average, for the output, for the gate's gradient, for batch norm's sums
and for the gradient at the inputs, which makes eleven. See `clusters`.
"""

from __future__ import annotations

import tensorflow as tf

from training.models import clusters, row_sums


def hard_sigmoid(values):
    """The gate, relu6(x + 3) * 0.16667.

    The five digits are slim's; with 1/6 the logits of its checkpoints move by up to 1e-3.
    """
    return tf.nn.relu6(values + 3.0) * 0.16667


def pays(inputs: tf.Tensor, activation: str) -> bool:
    """Whether this is the quicker way for this map, which is known as a graph is traced."""
    return (
        clusters.pays(inputs, activation) and row_sums.rows_per_block(_pixels(inputs)) is not None
    )


def norm_activation_gate(
    inputs: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float,
    activation: str,
    gate_weights: list[tf.Tensor],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises, activates, and scales each channel of an image by a gate.

    Args:
        inputs: (batch, height, width, channels) float32 of static shape.
        gamma: (channels,) scale.
        beta: (channels,) offset.
        epsilon: added to the variance.
        activation: 'relu', 'relu6' or 'hard_swish'.
        gate_weights: of the convolutions that compute the gate from all channels' averages,
            (1, 1, channels, inner), (inner,), (1, 1, inner, channels) and (channels,).

    Returns:
        Outputs like `inputs`; mean and biased variance, (channels,), which have no gradient.
    """

    @tf.custom_gradient
    def compute(inputs, gamma, beta, *gate_weights):
        outputs, mean, variance, average, _ = _forward(
            inputs, gamma, beta, epsilon, activation, gate_weights
        )

        def gradient(outer, _mean, _variance):
            of_norm, of_gate, _ = _backward(
                inputs,
                mean,
                variance,
                gamma,
                beta,
                epsilon,
                activation,
                average,
                gate_weights,
                outer,
            )
            return *of_norm, *of_gate

        return (outputs, mean, variance), gradient

    return compute(*(tf.convert_to_tensor(it) for it in (inputs, gamma, beta, *gate_weights)))


@tf.function(jit_compile=True)
def _forward(inputs, gamma, beta, epsilon, activation, gate_weights):
    mean, variance, sums = clusters.moments(inputs)
    normalised = clusters.normalise(inputs, mean, variance, gamma, beta, epsilon)
    features = clusters.activate(normalised, activation)
    feature_sums = row_sums.sums(features, _pixels(inputs))
    average = row_sums.totals(feature_sums) / _pixels(inputs)
    outputs = features * _spread(_gate(average, *gate_weights))
    return outputs, mean, variance, average, (sums, feature_sums)


@tf.function(jit_compile=True)
def _backward(
    inputs, mean, variance, gamma, beta, epsilon, activation, average, gate_weights, outer
):
    """Gradients at inputs, scale and offset; at the gate's weights; and sums."""
    normalised = clusters.normalise(inputs, mean, variance, gamma, beta, epsilon)
    products = row_sums.sums(clusters.activate(normalised, activation) * outer, _pixels(inputs))
    with tf.GradientTape() as tape:
        tape.watch([average, *gate_weights])
        gate = _gate(average, *gate_weights)
    gate_gradient = row_sums.totals(products)
    of_average, *of_gate = tape.gradient(gate, [average, *gate_weights], gate_gradient)
    outer = outer * _spread(gate) + _spread(of_average / _pixels(inputs))
    outer = clusters.activation_gradient(normalised, outer, activation)
    *of_norm, sums = clusters.norm_gradients(inputs, mean, variance, gamma, epsilon, outer)
    return of_norm, of_gate, (products, sums)


def _gate(average, squeeze_kernel, squeeze_bias, excite_kernel, excite_bias):
    """(batch, channels)."""
    inner = tf.matmul(average, tf.reshape(squeeze_kernel, squeeze_kernel.shape[2:]))
    inner = tf.nn.relu(inner + squeeze_bias)
    gate = tf.matmul(inner, tf.reshape(excite_kernel, excite_kernel.shape[2:]))
    return hard_sigmoid(gate + excite_bias)


def _spread(of_images):
    """(batch, channels) as something that goes with a map."""
    return of_images[:, None, None]


def _pixels(inputs) -> int:
    return inputs.shape[1] * inputs.shape[2]
