"""RandAugment and AutoAugment of one image, in the input pipeline."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import tensorflow as tf

from training.augmentation.policies import (
    AUTOAUGMENT,
    NAMES,
    RANDAUGMENT_NAMES,
    SIGNED_NAMES,
    argument,
)
from training.augmentation.purposes import POLICY
from training.augmentation.transforms import TRANSFORMS
from training.randomness import uniform

if TYPE_CHECKING:  # the configuration imports the models, which import the purposes
    from training.config import AugmentationFlags


def augment(image: tf.Tensor, key: tf.Tensor, flags: AugmentationFlags) -> tf.Tensor:
    """Applies the policy that the flags ask for; other augmentations leave the image as it is.

    Args:
        image: (height, width, 3) uint8 with a static shape.
        key: (2,) uint32 of the example.
        flags: which policy.

    Returns:
        (height, width, 3) uint8.
    """
    if flags.augmentation == "randaugment":
        steps = randaugment_steps(key, flags.randaugment_layers, flags.randaugment_magnitude)
    elif flags.augmentation == "autoaugment":
        steps = autoaugment_steps(key)
    else:
        return image
    for number, value in steps:
        branches = [functools.partial(transform, image, value) for transform in TRANSFORMS.values()]
        # Only the branch that is chosen runs.
        image = tf.ensure_shape(tf.switch_case(number, branches), image.shape)
    return image


def randaugment_steps(
    key: tf.Tensor, layers: int, magnitude: float
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Transforms drawn evenly from all: a list of (number in NAMES, argument), scalars."""
    draws = uniform(key[tf.newaxis], POLICY, 2 * layers)[0]
    numbers = tf.constant([NAMES.index(name) for name in RANDAUGMENT_NAMES])
    arguments = tf.constant([argument(name, magnitude) for name in RANDAUGMENT_NAMES])
    steps = []
    for layer in range(layers):
        choice = _choice(draws[2 * layer], len(RANDAUGMENT_NAMES))
        number = numbers[choice]
        steps.append((number, _signed(number, arguments[choice], draws[2 * layer + 1])))
    return steps


def autoaugment_steps(key: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """The two transforms of one sub-policy: a list of (number in NAMES, argument), scalars."""
    draws = uniform(key[tf.newaxis], POLICY, 5)[0]
    row = _choice(draws[0], len(AUTOAUGMENT))
    steps = []
    for step in range(2):
        names, probabilities, magnitudes = zip(*(pair[step] for pair in AUTOAUGMENT), strict=True)
        number = tf.constant([NAMES.index(name) for name in names])[row]
        value = tf.constant([argument(*pair) for pair in zip(names, magnitudes, strict=True)])[row]
        applied = draws[1 + step] < tf.constant(probabilities)[row]
        number = tf.where(applied, number, NAMES.index("Identity"))
        steps.append((number, _signed(number, value, draws[3 + step])))
    return steps


def _choice(draw: tf.Tensor, count: int) -> tf.Tensor:
    # The product may round up to `count`.
    return tf.minimum(tf.cast(draw * count, tf.int32), count - 1)


def _signed(number: tf.Tensor, value: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    signed = tf.constant([name in SIGNED_NAMES for name in NAMES])[number]
    return tf.where(signed & (draw < 0.5), -value, value)
