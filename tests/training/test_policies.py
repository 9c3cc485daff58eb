"""RandAugment and AutoAugment, on the host; Pillow says what each transform does."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from training.augmentation import augment
from training.augmentation.host import autoaugment_steps, randaugment_steps
from training.augmentation.policies import (
    AUTOAUGMENT,
    NAMES,
    RANDAUGMENT_NAMES,
    SIGNED_NAMES,
    argument,
)
from training.augmentation.transforms import TRANSFORMS
from training.config import AugmentationFlags
from training.randomness import example_keys

GREY = (128, 128, 128)
RANDAUGMENT = AugmentationFlags(augmentation="randaugment")


def photo(height=48, width=64):
    """Smooth, with a little noise, all channels different, not all grey levels used."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    channels = [90 + 60 * np.sin(x / 9 + k) + 40 * np.cos(y / 7 - k) for k in range(3)]
    noisy = np.stack(channels, axis=-1) + rng.normal(0, 4, (height, width, 3))
    return np.clip(noisy, 20, 220).astype(np.uint8)


def applied(name, image, value=0.0):
    return TRANSFORMS[name](tf.constant(image), tf.constant(value, tf.float32)).numpy()


def affine(image, *matrix):
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=GREY
    )


def solarize_add(image, addition):
    table = [min(255, i + addition) if i < 128 else i for i in range(256)]
    return image.point(table * 3)


PILLOW = {
    "Identity": lambda image, _: image,
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
    "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "Solarize": ImageOps.solarize,
    "SolarizeAdd": solarize_add,
    "Color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "Contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "Brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "Sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "Rotate": lambda image, degrees: image.rotate(degrees, fillcolor=GREY),
    "ShearX": lambda image, slope: affine(image, 1, slope, 0, 0, 1, 0),
    "ShearY": lambda image, slope: affine(image, 1, 0, 0, slope, 1, 0),
    "TranslateX": lambda image, part: affine(image, 1, 0, part * image.width, 0, 1, 0),
    "TranslateY": lambda image, part: affine(image, 1, 0, 0, 0, 1, part * image.height),
}

ARGUMENTS = {
    "Posterize": (1.0, 2.0, 4.0, 8.0),
    "Solarize": (0.0, 51.0, 128.0, 230.0, 256.0),
    "SolarizeAdd": (0.0, 33.0, 110.0),
    "Color": (0.1, 0.64, 1.0, 1.9),
    "Contrast": (0.1, 0.64, 1.0, 1.9),
    "Brightness": (0.1, 0.64, 1.0, 1.9),
    "Sharpness": (0.1, 0.64, 1.0, 1.9),
    "Rotate": (0.0, 27.0, -13.7),
    "ShearX": (0.27, -0.113),
    "ShearY": (0.27, -0.113),
    "TranslateX": (0.4, -0.123),
    "TranslateY": (0.4, -0.123),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in NAMES for value in ARGUMENTS.get(name, (0.0,))]
)
def test_transforms_are_pillows(name, value):
    ours = applied(name, photo(), value).astype(int)
    theirs = np.asarray(PILLOW[name](Image.fromarray(photo()), value)).astype(int)
    if name in SIGNED_NAMES:
        # A coordinate half-way between two pixels may be rounded to either.
        assert np.mean(np.any(ours != theirs, axis=-1)) < 0.003
    else:
        assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Contrast"])
@pytest.mark.parametrize("image", [np.full((8, 9, 3), 7), np.arange(216).reshape(8, 9, 3)])
def test_statistics_of_odd_images_are_pillows(name, image):
    image = image.astype(np.uint8)
    theirs = np.asarray(PILLOW[name](Image.fromarray(image), 1.9)).astype(int)
    assert np.abs(applied(name, image, 1.9).astype(int) - theirs).max() <= 1


def test_the_autoaugment_table_has_25_pairs_of_known_transforms():
    assert len(AUTOAUGMENT) == 25 and len(set(AUTOAUGMENT)) == 25
    for pair in AUTOAUGMENT:
        assert len(pair) == 2
        for name, probability, magnitude in pair:
            assert name in RANDAUGMENT_NAMES
            assert 0 <= probability <= 1 and round(probability * 10) == probability * 10
            assert magnitude in range(11)


def test_arguments_at_the_ends_of_the_magnitude():
    ends = {name: (argument(name, 0), argument(name, 10)) for name in RANDAUGMENT_NAMES}
    assert ends == {
        "AutoContrast": (0.0, 0.0),
        "Equalize": (0.0, 0.0),
        "Invert": (0.0, 0.0),
        "Rotate": (0.0, 30.0),
        "Posterize": (1.0, 4.0),
        "Solarize": (0.0, 256.0),
        "SolarizeAdd": (0.0, 110.0),
        "Color": (0.1, pytest.approx(1.9)),
        "Contrast": (0.1, pytest.approx(1.9)),
        "Brightness": (0.1, pytest.approx(1.9)),
        "Sharpness": (0.1, pytest.approx(1.9)),
        "ShearX": (0.0, 0.3),
        "ShearY": (0.0, 0.3),
        "TranslateX": (0.0, 0.45),
        "TranslateY": (0.0, 0.45),
    }


def drawn(steps_of, count):
    """(count, steps, 2): number of the transform and its argument, of many examples."""

    def flat(key):
        return tf.stack([tf.stack([tf.cast(n, tf.float32), v]) for n, v in steps_of(key)])

    keys = tf.constant(example_keys(0, 0, np.arange(count)))
    return tf.function(lambda: tf.map_fn(flat, keys, fn_output_signature=tf.float32))().numpy()


def test_randaugment_draws_all_transforms_evenly_and_independently():
    steps = drawn(lambda key: randaugment_steps(key, 2, 9.0), 6000)
    numbers = steps[:, :, 0].astype(int)
    for layer in range(2):
        counts = np.bincount(numbers[:, layer], minlength=len(NAMES))
        assert counts[NAMES.index("Identity")] == 0
        # 400 of each are expected, give or take 19.
        assert np.abs(counts[1:] - 400).max() < 80
    assert np.mean(numbers[:, 0] == numbers[:, 1]) == pytest.approx(1 / 15, abs=0.015)


def test_arguments_are_those_of_the_magnitude_and_as_often_negative():
    steps = drawn(lambda key: randaugment_steps(key, 2, 9.0), 3000).reshape(-1, 2)
    for index, name in enumerate(NAMES[1:], start=1):
        values = steps[steps[:, 0] == index, 1]
        np.testing.assert_allclose(np.abs(values), argument(name, 9.0), rtol=1e-6)
        negative = np.mean(values < 0)
        assert 0.38 < negative < 0.62 if name in SIGNED_NAMES else negative == 0


def test_autoaugment_applies_pairs_evenly_and_with_their_probabilities():
    steps = drawn(autoaugment_steps, 6000)
    expected = collections.Counter()
    for pair in AUTOAUGMENT:
        for name, probability, _ in pair:
            expected[name] += probability / len(AUTOAUGMENT)
    for name in RANDAUGMENT_NAMES:
        share = np.mean(steps[:, :, 0] == NAMES.index(name)) * 2
        assert share == pytest.approx(expected[name], abs=0.03), name
    # Of no row but one is the second transform TranslateY, and its first always rotates by 21.
    chosen = steps[steps[:, 1, 0] == NAMES.index("TranslateY")]
    assert len(chosen) == pytest.approx(6000 * 0.8 / 25, abs=50)
    assert np.all(chosen[:, 0, 0] == NAMES.index("Rotate"))
    np.testing.assert_allclose(np.abs(chosen[:, 0, 1]), 21.0, rtol=1e-6)


@pytest.mark.parametrize("augmentation", ["randaugment", "autoaugment"])
def test_augmentation_in_a_pipeline_is_the_drawn_transforms_in_turn(augmentation):
    flags = dataclasses.replace(RANDAUGMENT, augmentation=augmentation)
    keys = example_keys(0, 0, np.arange(24))
    image = photo()
    batches = tf.data.Dataset.from_tensor_slices(keys).map(
        lambda key: augment(tf.constant(image), key, flags)
    )
    assert batches.element_spec == tf.TensorSpec(image.shape, tf.uint8)
    changed = 0
    for key, out in zip(keys, batches, strict=True):
        steps = (
            randaugment_steps(tf.constant(key), 2, 9.0)
            if augmentation == "randaugment"
            else autoaugment_steps(tf.constant(key))
        )
        expected = image
        for number, value in steps:
            expected = applied(NAMES[int(number)], expected, float(value))
        np.testing.assert_array_equal(out, expected)
        changed += not np.array_equal(out, image)
    assert changed > 12


def test_other_augmentations_leave_the_image_to_the_device():
    image = tf.constant(photo())
    for augmentation in ("inception", "inception_full", "none"):
        flags = dataclasses.replace(RANDAUGMENT, augmentation=augmentation)
        assert augment(image, tf.constant([1, 2], tf.uint32), flags) is image
