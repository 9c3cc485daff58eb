"""From the bytes of a photo to pixels, beside TF1's resizing, Pillow and numpy."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from common.errors import UsageError
from training.image_ops import decode_for_evaluation, decode_for_training, decode_whole

SIZE = (48, 40)
KEYS = [(1, 2), (3, 4), (2**32 - 1, 7), (0, 5), (9, 9), (11, 2**31)]


def photo(height=150, width=210, encoding="JPEG", **options) -> bytes:
    """Smooth colours with edges: gradients, squares and some noise."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // height, columns * 255 // width, (rows + columns) * 2 % 256]
    pixels = np.stack(planes, axis=-1)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = [250, 5, 5]
    pixels = pixels + np.random.default_rng(0).integers(-6, 7, pixels.shape)
    content = io.BytesIO()
    image = PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(content, encoding, **options)
    return content.getvalue()


def training(content, key, min_area=0.05, fused=True, size=SIZE):
    seed = tf.constant(key, tf.int64)
    return decode_for_training(tf.constant(content), size, seed, min_area, fused).numpy()


def sampled_window(content, key, min_area):
    """The crop that TensorFlow's op draws for a key, and the whole photo."""
    whole = tf.io.decode_jpeg(content, channels=3)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(whole),
        tf.zeros([1, 0, 4]),
        seed=tf.constant(key, tf.int64),
        min_object_covered=0.1,
        aspect_ratio_range=(0.75, 1.33),
        area_range=(min_area, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    (top, left, _), (height, width, _) = begin.numpy(), extent.numpy()
    return whole.numpy(), (top, left, height, width)


def bilinear(image, size):
    """TF1's grid in numpy: output pixel i samples at i * in / out."""
    pixels = image.astype(np.float64)
    for axis, (source, target) in enumerate(zip(image.shape, size, strict=False)):
        at = np.arange(target) * (source / target)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, source - 1)
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
        low_pixels, high_pixels = (np.take(pixels, index, axis) for index in (low, high))
        pixels = low_pixels + (high_pixels - low_pixels) * part
    return pixels


def difference(one, other):
    return np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max()


@pytest.mark.parametrize("key", KEYS)
def test_a_training_crop_is_the_sampled_window_resized_on_the_grid_of_tf1(key):
    """The window of TensorFlow's op, from the whole photo, by `tf.compat.v1` and by numpy."""
    content = photo()
    whole, (top, left, height, width) = sampled_window(content, key, 0.05)
    part = whole[top : top + height, left : left + width]
    image = training(content, key)
    assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
    theirs = tf.compat.v1.image.resize_bilinear(part[np.newaxis].astype(np.float32), SIZE)[0]
    # Chroma at a crop's edge is upsampled without its neighbours, so that edges may differ more.
    inner = (slice(4, -4), slice(4, -4))
    assert difference(image[inner], np.rint(theirs)[inner]) <= 1
    assert difference(image[inner], bilinear(part, SIZE)[inner]) <= 1.01


def test_keys_give_crops_of_their_own_and_the_same_again():
    content = photo()
    images = [training(content, key) for key in KEYS]
    assert len({image.tobytes() for image in images}) == len(KEYS)
    for key, image in zip(KEYS, images, strict=True):
        assert np.array_equal(training(content, key), image)


def test_crops_have_the_least_area_at_least():
    content = photo()
    areas = []
    for number in range(40):
        whole, (_, _, height, width) = sampled_window(content, (number, 1), 0.6)
        areas.append(height * width / (whole.shape[0] * whole.shape[1]))
        image = training(content, (number, 1), min_area=0.6)
        # Blue counts rows plus columns: the crop's extent shows in the red and green gradients.
        rows = (float(image[-4:, :, 0].mean()) - float(image[:4, :, 0].mean())) / 255
        columns = (float(image[:, -4:, 1].mean()) - float(image[:, :4, 1].mean())) / 255
        assert rows * columns > 0.6 * 0.75  # the squares and the outermost rows take some
    assert min(areas) > 0.59 and max(areas) > 0.85


def test_a_photo_that_is_no_jpeg_gives_the_crop_that_a_jpeg_gives():
    png, jpeg = photo(encoding="PNG"), photo(quality=100, subsampling=0)
    for key in KEYS:
        ours = training(png, key, fused=False).astype(int)
        # TensorFlow's fast inverse DCT is off by some levels where the wrap of blue is.
        assert np.mean(np.abs(ours - training(jpeg, key))) < 1.5
        assert difference(training(jpeg, key, fused=False), training(jpeg, key)) <= 1


def test_a_grey_photo_has_three_equal_channels():
    content = io.BytesIO()
    PIL.Image.fromarray(np.arange(80 * 90).reshape(80, 90).astype(np.uint8)).save(content, "JPEG")
    for image in (
        training(content.getvalue(), (1, 2)),
        decode_whole(tf.constant(content.getvalue()), SIZE).numpy(),
    ):
        assert np.ptp(image, axis=-1).max() == 0 and np.ptp(image) > 100


@pytest.mark.parametrize("encoding", ["JPEG", "PNG"])
def test_the_whole_photo_is_resized_without_a_crop(encoding):
    content = photo(encoding=encoding)
    whole = tf.io.decode_image(content, channels=3).numpy()
    image = decode_whole(tf.constant(content), SIZE).numpy()
    assert image.dtype == np.uint8
    assert difference(image, bilinear(whole, SIZE)) <= 0.51


def test_black_and_white_stay_so():
    """Rounding does not leave the range of a byte."""
    for level in (0, 255):
        content = io.BytesIO()
        PIL.Image.new("RGB", (70, 60), (level,) * 3).save(content, "JPEG")
        assert np.all(decode_whole(tf.constant(content.getvalue()), SIZE).numpy() == level)


def test_inception_evaluation_takes_the_central_part():
    content = photo()
    whole = tf.io.decode_jpeg(content, channels=3).numpy()
    # (150 - 131.25) / 2 = 9.375 and (210 - 183.75) / 2 = 13.125, truncated
    theirs = bilinear(whole[9:-9, 13:-13], SIZE) / 255 * 2 - 1
    ours = decode_for_evaluation(tf.constant(content), SIZE, (-1.0, 1.0)).numpy()
    assert ours.dtype == np.float32
    assert difference(ours, theirs) < 1e-4


def pillow_centre(content, size):
    """What torchvision's Resize(bicubic) and CenterCrop do to a Pillow image."""
    with PIL.Image.open(io.BytesIO(content)) as file:
        image = file.convert("RGB")
    shorter = round(size / 0.875)
    width, height = image.size
    if width < height:
        new = (shorter, int(shorter * height / width))
    else:
        new = (int(shorter * width / height), shorter)
    pixels = np.asarray(image.resize(new, PIL.Image.Resampling.BICUBIC))
    top, left = round((new[1] - size) / 2.0), round((new[0] - size) / 2.0)
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(150, 210), (211, 120), (90, 90), (33, 47), (301, 640)])
def test_bicubic_evaluation_is_that_of_torchvision(shape):
    """By Pillow, smaller and larger; PNG, so that JPEG decoders do not matter."""
    content = photo(*shape, encoding="PNG")
    ours = decode_for_evaluation(tf.constant(content), (64, 64), (0.0, 255.0), "bicubic").numpy()
    theirs = pillow_centre(content, 64)
    assert difference(ours, theirs) <= 2
    assert np.mean(np.abs(ours - theirs)) < 0.4


def test_bicubic_evaluation_keeps_the_aspect_ratio_of_a_size_that_is_not_square():
    """The middle of a photo that is 12 times as wide as the window sees no stretching."""
    content = io.BytesIO()
    pixels = np.zeros((160, 400, 3), np.uint8)
    pixels[60:100, 180:220] = 255  # a square
    PIL.Image.fromarray(pixels).save(content, "PNG")
    ours = decode_for_evaluation(
        tf.constant(content.getvalue()), (70, 140), (0.0, 1.0), "bicubic"
    ).numpy()
    assert ours.shape == (70, 140, 3)
    rows, columns = (ours[..., 0] > 0.5).any(axis=1).sum(), (ours[..., 0] > 0.5).any(axis=0).sum()
    assert rows == columns == 20  # of 160 rows 80 remain, 87.5 % of which are the input
    bright = np.argwhere(ours[..., 0] > 0.5).mean(axis=0)
    assert np.allclose(bright, [34.5, 69.5])


def test_an_unknown_preprocessing_is_refused():
    with pytest.raises(UsageError, match="area"):
        decode_for_evaluation(tf.constant(photo()), SIZE, (0.0, 1.0), "area")
