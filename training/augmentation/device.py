"""From a batch of cropped uint8 images to the model's input and the targets, in the training step.

XLA compiles all of it: TensorFlow's own kernels go through memory for every operation, and flipping
alone takes them longer on a CPU than all of the fast colour mode takes here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from common.errors import UsageError
from training.augmentation import colour, purposes
from training.augmentation.erasing import erase
from training.augmentation.mixing import NUM_DRAWS, draw_mix, mix_with_partner
from training.randomness import uniform

if TYPE_CHECKING:  # the configuration imports the models, which import the purposes
    from training.config import AugmentationFlags


def prepare(
    images: tf.Tensor,
    labels: tf.Tensor,
    keys: tf.Tensor,
    flags: AugmentationFlags,
    num_outputs: int,
    label_smoothing: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Flips, distorts the colours, mixes, erases and scales; and makes the targets.

    Args:
        images: (batch, height, width, 3) uint8; the shape must be static.
        labels: (batch,) int64, numbers of the right outputs.
        keys: (batch, 2) uint32, of which all random numbers are functions.
        flags: what is to be done.
        num_outputs: outputs of the model.
        label_smoothing: s gives the label 1 - s, and every output s / num_outputs on top.

    Returns:
        pixels: (batch, height, width, 3) float32 in `flags.input_range`.
        targets: (batch, num_outputs) float32; each row sums to 1.

    Raises:
        UsageError: neighbours are to be mixed, and the batch is odd.
    """
    if flags.mixes and images.shape[0] % 2:
        raise UsageError(
            "--mixup_alpha and --cutmix_alpha mix pairs: the batch per replica must be even,"
            f" not {images.shape[0]}"
        )
    return _compiled(flags, num_outputs, label_smoothing)(images, labels, keys)


@functools.lru_cache(maxsize=16)
def _compiled(flags: AugmentationFlags, num_outputs: int, label_smoothing: float) -> Callable:
    """One function for each setting, so that calls outside of a graph compile only once."""

    @tf.function(jit_compile=True, autograph=False)
    def prepare_batch(images, labels, keys):
        return _prepare(images, labels, keys, flags, num_outputs, label_smoothing)

    return prepare_batch


def _prepare(
    images: tf.Tensor,
    labels: tf.Tensor,
    keys: tf.Tensor,
    flags: AugmentationFlags,
    num_outputs: int,
    label_smoothing: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    if flags.augmentation != "none":
        flipped = uniform(keys, purposes.FLIP, 1)[:, :, tf.newaxis, tf.newaxis] < 0.5
        images = tf.where(flipped, tf.reverse(images, axis=[2]), images)
    planes = [plane / 255.0 for plane in tf.unstack(tf.cast(images, tf.float32), axis=-1)]
    if flags.augmentation == "inception":
        planes = colour.distort_fast(planes, uniform(keys, purposes.COLOUR, 2))
    elif flags.augmentation == "inception_full":
        planes = colour.distort_full(planes, uniform(keys, purposes.COLOUR, 5))
    targets = one_hot(labels, num_outputs, label_smoothing)
    if flags.mixes:
        draws = uniform(keys, purposes.MIX, NUM_DRAWS)
        mix = draw_mix(draws, tuple(images.shape[1:3]), flags.mixup_alpha, flags.cutmix_alpha)
        planes = [mix_with_partner(plane, mix.pixels) for plane in planes]
        targets = mix_with_partner(targets, mix.targets)
    if flags.random_erasing:
        planes = erase(planes, keys, flags.random_erasing)
    black, white = flags.input_range
    return tf.stack(planes, axis=-1) * (white - black) + black, targets


def one_hot(labels: tf.Tensor, num_outputs: int, smoothing: float) -> tf.Tensor:
    """Targets smoothed over all outputs, as in slim: (batch, num_outputs) float32."""
    spread = smoothing / num_outputs
    return tf.one_hot(labels, num_outputs, 1.0 - smoothing + spread, spread)
