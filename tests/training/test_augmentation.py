"""What the device does to a batch: flip, colour, erasing, scaling, targets."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from training.augmentation import colour, prepare, purposes
from training.augmentation.erasing import AREA_RANGE, erase
from training.config import AugmentationFlags
from training.randomness import example_keys, uniform

NONE = AugmentationFlags(augmentation="none", input_range=(0.0, 1.0))
POLICY = dataclasses.replace(NONE, augmentation="randaugment")  # on the device: the flip alone


def images_of(count, size=(8, 10)):
    return np.random.default_rng(3).integers(0, 256, (count, *size, 3), np.uint8)


def keys_of(count, seed=1):
    return tf.constant(example_keys(seed, 0, np.arange(count)))


def prepared(images, flags, keys=None):
    keys = keys_of(len(images)) if keys is None else keys
    labels = tf.zeros([len(images)], tf.int64)
    return prepare(tf.constant(images), labels, keys, flags, 4, 0.0)[0].numpy()


def flips_of(count):
    return uniform(keys_of(count), purposes.FLIP, 1)[:, 0].numpy() < 0.5


def planes_of(pixels):
    return tf.unstack(tf.constant(pixels, tf.float32), axis=-1)


def factor_of(values):
    return tf.constant(values, tf.float32)[:, tf.newaxis, tf.newaxis]


@pytest.mark.parametrize("input_range", [(-1.0, 1.0), (0.0, 255.0)])
def test_without_augmentation_pixels_are_only_scaled(input_range):
    images = images_of(6)
    out = prepared(images, dataclasses.replace(NONE, input_range=input_range))
    black, white = input_range
    np.testing.assert_allclose(
        out, images / 255 * (white - black) + black, atol=1e-6 * (white - black)
    )


def test_half_of_the_images_are_flipped_and_nothing_else_happens_to_them():
    images = images_of(400)
    flips = flips_of(400)
    expected = np.where(flips[:, None, None, None], images[:, :, ::-1], images) / 255
    np.testing.assert_allclose(prepared(images, POLICY), expected, atol=1e-6)
    assert 160 < flips.sum() < 240


def test_inception_is_brightness_then_saturation_then_clipping():
    images, flips = images_of(12), flips_of(12)
    out = prepared(images, dataclasses.replace(NONE, augmentation="inception"))
    draws = uniform(keys_of(12), purposes.COLOUR, 2).numpy()
    for image, flip, (brightness, saturation), result in zip(
        images, flips, draws, out, strict=True
    ):
        pixels = tf.constant((image[:, ::-1] if flip else image) / 255.0, tf.float32)
        pixels = tf.image.adjust_brightness(pixels, (2 * brightness - 1) * 32 / 255)
        pixels = tf.image.adjust_saturation(pixels, 0.5 + saturation)
        np.testing.assert_allclose(result, tf.clip_by_value(pixels, 0.0, 1.0), atol=5e-6)


ORDERS = ("BSHC", "SBCH", "CHBS", "HSCB")  # slim's


def test_inception_full_is_slims_four_orders():
    images, flips = images_of(32), flips_of(32)
    out = prepared(images, dataclasses.replace(NONE, augmentation="inception_full"))
    draws = uniform(keys_of(32), purposes.COLOUR, 5).numpy()
    orders = (draws[:, 0] * 4).astype(int)
    assert set(orders) == {0, 1, 2, 3}
    for image, flip, order, draw, result in zip(images, flips, orders, draws, out, strict=True):
        pixels = tf.constant((image[:, ::-1] if flip else image) / 255.0, tf.float32)
        adjustments = {
            "B": lambda x, d=draw: tf.image.adjust_brightness(x, (2 * d[1] - 1) * 32 / 255),
            "S": lambda x, d=draw: tf.image.adjust_saturation(x, 0.5 + d[2]),
            "H": lambda x, d=draw: tf.image.adjust_hue(x, (2 * d[3] - 1) * 0.2),
            "C": lambda x, d=draw: tf.image.adjust_contrast(x, 0.5 + d[4]),
        }
        for letter in ORDERS[order]:
            pixels = adjustments[letter](pixels)
        np.testing.assert_allclose(
            result, tf.clip_by_value(pixels, 0.0, 1.0), atol=2e-5, err_msg=ORDERS[order]
        )


@pytest.mark.parametrize(
    ("ours", "tensorflows", "low", "high"),
    [
        (colour.adjust_saturation, tf.image.adjust_saturation, 0.0, 2.0),
        (colour.adjust_hue, tf.image.adjust_hue, -0.5, 0.5),
        (colour.adjust_contrast, tf.image.adjust_contrast, 0.0, 2.0),
    ],
)
def test_adjustments_are_tensorflows_own_image_by_image(ours, tensorflows, low, high):
    # Brightness comes before, and clipping after: there are values beyond 0 and 1.
    pixels = np.random.default_rng(0).uniform(-0.12, 1.12, (12, 8, 10, 3)).astype(np.float32)
    pixels[0, 0, 0] = 0.0
    pixels[1, 0, 1] = 0.4
    factors = np.linspace(low, high, 12, dtype=np.float32)
    result = tf.stack(ours(planes_of(pixels), factor_of(factors)), axis=-1)
    for image, factor, adjusted in zip(pixels, factors, result, strict=True):
        np.testing.assert_allclose(
            np.clip(adjusted, 0, 1),
            np.clip(tensorflows(image, factor), 0, 1),
            atol=1e-5,
            err_msg=str(factor),
        )


def test_an_example_does_not_depend_on_the_rest_of_the_batch():
    flags = AugmentationFlags(augmentation="inception_full", random_erasing=0.5)
    images, keys = images_of(8), keys_of(8)
    whole = prepared(images, flags, keys)
    # Means are summed up in another order in another batch, so equal but for rounding.
    np.testing.assert_allclose(prepared(images[2:4], flags, keys[2:4]), whole[2:4], atol=1e-5)
    np.testing.assert_array_equal(prepared(images, flags, keys), whole)
    assert not np.allclose(prepared(images, flags, keys_of(8, seed=2)), whole, atol=0.1)


@pytest.mark.parametrize("augmentation", ["inception", "inception_full"])
def test_distorted_images_stay_in_the_input_range(augmentation):
    out = prepared(images_of(64), AugmentationFlags(augmentation=augmentation))
    assert (out.min(), out.max()) == pytest.approx((-1.0, 1.0))


def erased_boxes(count, probability, size=40):
    """Mask and content of what is erased from images of -1, which no noise is."""
    planes = [tf.fill([count, size, size], -1.0)] * 3
    pixels = np.stack(erase(planes, keys_of(count), probability), axis=-1)
    return pixels[..., 0] >= 0, pixels


def test_as_many_images_are_erased_as_asked_for():
    mask, _ = erased_boxes(400, 0.25)
    assert 70 < mask.any(axis=(1, 2)).sum() < 130
    assert not erased_boxes(20, 0.0)[0].any()


def test_what_is_erased_is_a_box_of_the_right_area_and_shape():
    mask, _ = erased_boxes(400, 1.0)
    areas, ratios = [], []
    for one in mask:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert one.sum() == len(rows) * len(columns)
        assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1
        areas.append(one.mean())
        ratios.append(len(rows) / len(columns))
    assert min(areas) > AREA_RANGE[0] - 0.01 and max(areas) < AREA_RANGE[1] + 0.02
    assert np.mean(areas) == pytest.approx(np.mean(AREA_RANGE), abs=0.02)
    assert 0.25 < min(ratios) < 0.4 and 2.5 < max(ratios) < 3.7
    assert np.mean(np.log(ratios)) == pytest.approx(np.log(0.3 * 3.3) / 2, abs=0.1)
    reached = mask.any(axis=0)  # the edges, too
    assert reached.any(axis=0).all() and reached.any(axis=1).all() and reached.mean() > 0.99


def test_boxes_are_filled_with_noise_of_imagenets_mean_and_deviation():
    mask, pixels = erased_boxes(200, 1.0)
    noise = pixels[mask]
    # Clipping to [0, 1] narrows it a little.
    np.testing.assert_allclose(noise.mean(axis=0), (0.485, 0.456, 0.406), atol=0.015)
    np.testing.assert_allclose(noise.std(axis=0), (0.229, 0.224, 0.225), atol=0.02)
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.02
    middle = np.quantile(noise[:, 0], [0.1587, 0.5, 0.8413])
    np.testing.assert_allclose(middle, [0.485 - 0.229, 0.485, 0.485 + 0.229], atol=0.01)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_are_smoothed_as_in_keras(smoothing):
    labels = tf.constant([0, 3, 4], tf.int64)
    _, targets = prepare(tf.constant(images_of(3)), labels, keys_of(3), NONE, 5, smoothing)
    logits = tf.random.stateless_normal([3, 5], [0, 1])
    expected = tf.keras.losses.categorical_crossentropy(
        tf.one_hot(labels, 5), logits, from_logits=True, label_smoothing=smoothing
    )
    ours = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_purposes_have_numbers_of_their_own():
    numbers = [value for name, value in vars(purposes).items() if name.isupper()]
    assert len(numbers) >= 7 and len(set(numbers)) == len(numbers)
