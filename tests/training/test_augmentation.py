import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.augmentation import NUM_DRAWS, adjust_saturation, distort
from training.image_ops import decode_for_training, decode_whole, scale_pixels


def gradient_jpeg(width=256, height=192) -> bytes:
    """Red tells the column, green the row."""
    red, green = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([red, green, np.zeros_like(red)], axis=-1).astype(np.uint8)
    return tf.io.encode_jpeg(pixels, quality=100, chroma_downsampling=False).numpy()


@pytest.mark.parametrize("min_area", [0.05, 0.5, 0.9])
def test_crops_keep_to_their_area_and_aspect_ratio_and_reach_everywhere(min_area):
    jpeg = tf.constant(gradient_jpeg())
    areas, ratios, centres = [], [], []
    for number in range(150):
        crop = decode_for_training(jpeg, (16, 16), tf.constant([number, 0], tf.int64), min_area)
        red, green = crop[..., 0].numpy().astype(float), crop[..., 1].numpy().astype(float)
        # The sampling grid is (start + i * side / 16), so that one step is 1/16 of the side.
        width = (red[:, -1].mean() - red[:, 0].mean()) * 16 / 15
        height = (green[-1].mean() - green[0].mean()) * 16 / 15
        areas.append(width * height / (256 * 192))
        ratios.append(width / height)
        centres.append([red.mean() / 256, green.mean() / 192])
    assert min_area - 0.02 <= min(areas) and max(areas) <= 1.02
    assert np.ptp(areas) > 0.5 * (1 - min_area)
    assert min(ratios) >= 0.72 and max(ratios) <= 1.4
    if min_area < 0.1:
        assert np.all(np.min(centres, axis=0) < 0.35) and np.all(np.max(centres, axis=0) > 0.6)


def test_a_crop_depends_on_its_key_alone():
    jpeg = tf.constant(gradient_jpeg())

    def crop(*key):
        return decode_for_training(jpeg, (16, 16), tf.constant(key, tf.int64), 0.05).numpy()

    assert np.array_equal(crop(3, 4), crop(3, 4))
    assert not np.array_equal(crop(3, 4), crop(4, 3))


def test_grey_photos_have_three_channels(tmp_path):
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(tmp_path / "grey.jpg")
    jpeg = tf.constant((tmp_path / "grey.jpg").read_bytes())
    for image in (
        decode_whole(jpeg, (16, 16)),
        decode_for_training(jpeg, (16, 16), tf.constant([0, 0], tf.int64), 0.05),
    ):
        assert image.shape == (16, 16, 3) and image.dtype == tf.uint8
        assert np.all(np.abs(image.numpy().astype(int) - 90) <= 1)


def test_pixels_are_scaled_to_the_input_range():
    pixels = tf.constant([0, 51, 255], tf.uint8)
    np.testing.assert_allclose(scale_pixels(pixels, (-1.0, 1.0)), [-1, -0.6, 1], atol=1e-6)
    np.testing.assert_allclose(scale_pixels(pixels, (0.0, 255.0)), [0, 51, 255], atol=1e-4)


# Flip, brightness and saturation of these draws: none, +0, x1.
NEUTRAL = [0.9, 0.5, 0.5]


def images_of(count=6):
    return np.random.default_rng(3).integers(0, 256, (count, 8, 10, 3), np.uint8)


def test_neutral_draws_only_scale():
    images = images_of()
    out = distort(images, tf.constant([NEUTRAL] * len(images)), (-1.0, 1.0))
    np.testing.assert_allclose(out, images / 127.5 - 1, atol=1e-6)


def test_saturation_is_tensorflows_own_image_by_image():
    rng = np.random.default_rng(0)
    # Brightness comes before, and clipping after: there are values beyond 0 and 1.
    pixels = rng.uniform(-0.12, 1.12, (12, 8, 10, 3)).astype(np.float32)
    pixels[0, 0, 0] = 0.0
    pixels[0, 0, 1] = 0.4
    factors = np.linspace(0.0, 2.0, 12, dtype=np.float32)
    ours = adjust_saturation(pixels, factors[:, None, None, None])
    for image, factor, result in zip(pixels, factors, ours, strict=True):
        expected = tf.image.adjust_saturation(image, factor)
        np.testing.assert_allclose(
            np.clip(result, 0, 1), np.clip(expected, 0, 1), atol=2e-6, err_msg=str(factor)
        )


def test_distortion_is_brightness_then_saturation_then_clipping():
    images = images_of()
    rng = np.random.default_rng(5)
    draws = rng.uniform(size=(len(images), NUM_DRAWS)).astype(np.float32)
    ours = distort(images, draws, (-1.0, 1.0))
    for image, (flip, brightness, saturation), result in zip(images, draws, ours, strict=True):
        pixels = tf.constant(image / 255.0, tf.float32)
        if flip < 0.5:
            pixels = tf.image.flip_left_right(pixels)
        pixels = tf.image.adjust_brightness(pixels, (2 * brightness - 1) * 32 / 255)
        pixels = tf.image.adjust_saturation(pixels, 0.5 + saturation)
        expected = tf.clip_by_value(pixels, 0.0, 1.0) * 2 - 1
        np.testing.assert_allclose(result, expected, atol=5e-6)


@pytest.mark.parametrize("input_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
def test_distorted_images_stay_in_the_input_range(input_range):
    draws = tf.random.stateless_uniform([64, NUM_DRAWS], [0, 1])
    out = distort(images_of(64), draws, input_range).numpy()
    assert (out.min(), out.max()) == pytest.approx(input_range)


def test_half_of_the_images_are_flipped():
    images = images_of(1).repeat(400, axis=0)
    draws = np.tile(np.float32(NEUTRAL), (400, 1))
    draws[:, 0] = np.random.default_rng(0).uniform(size=400)
    out = distort(images, draws, (0.0, 255.0)).numpy()
    flipped = np.array([np.allclose(image, images[0, :, ::-1], atol=0.01) for image in out])
    straight = np.array([np.allclose(image, images[0], atol=0.01) for image in out])
    assert np.array_equal(flipped, ~straight) and 160 < flipped.sum() < 240
