"""The image operations of AutoAugment and RandAugment, one image at a time, on the host.

Each takes an image of (height, width, 3) uint8 and a float32 scalar, the argument, which some do
not need. They do what Pillow's functions of these names do, to within one grey level; those that
move pixels may take the other neighbour where a coordinate lies half-way between two.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

FILL = 128.0  # grey, for what comes into the image from outside

Transform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def identity(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return image


def auto_contrast(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0 to 255."""
    pixels = tf.cast(image, tf.float32)
    low, high = tf.reduce_min(pixels, axis=(0, 1)), tf.reduce_max(pixels, axis=(0, 1))
    stretched = tf.floor((pixels - low) * tf.math.divide_no_nan(255.0, high - low) + 1e-3)
    return _to_uint8(tf.where(high > low, stretched, pixels))


def equalize(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    """Spreads each channel so that all values are about as frequent."""
    return tf.stack([_equalize_channel(channel) for channel in tf.unstack(image, axis=-1)], axis=-1)


def invert(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return 255 - image


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the upper `bits` bits of each value."""
    unit = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32))
    return tf.cast(tf.cast(image, tf.int32) // unit * unit, tf.uint8)


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts values from `threshold` on."""
    return tf.where(tf.cast(image, tf.float32) < threshold, image, 255 - image)


def solarize_add(image: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
    """Adds to values below 128."""
    return tf.where(image < 128, _to_uint8(tf.cast(image, tf.float32) + addition), image)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """0 is grey, 1 the image."""
    return _blend(_grey(image)[:, :, tf.newaxis], image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """0 is the mean grey, 1 the image."""
    return _blend(tf.floor(tf.reduce_mean(_grey(image)) + 0.5), image, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """0 is black, 1 the image."""
    return _blend(0.0, image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """0 is smoothed by 3 x 3 pixels, 1 the image; the outermost pixels stay."""
    pixels = tf.cast(image, tf.float32)
    # Nine slices: a depthwise convolution of three channels takes longer.
    around = tf.add_n(
        [_window(pixels, row, column) for row in range(3) for column in range(3)]
        + [4.0 * _window(pixels, 1, 1)]
    )
    smooth = tf.floor(around / 13.0 + 0.5)
    inner = _blend(smooth, _window(pixels, 1, 1), factor)
    middle = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], middle, image[-1:]], axis=0)


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turns counter-clockwise about the centre."""
    angle = degrees * (math.pi / 180.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    height, width = image.shape[0] / 2.0, image.shape[1] / 2.0
    return _affine(
        image,
        [cosine, -sine, width - cosine * width + sine * height],
        [sine, cosine, height - sine * width - cosine * height],
    )


def shear_x(image: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Rows move to the left by `slope` times their number, to the right where it is below 0."""
    return _affine(image, [1.0, slope, 0.0], [0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    return _affine(image, [1.0, 0.0, 0.0], [slope, 1.0, 0.0])


def translate_x(image: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Moves to the left by a part of the width, to the right where it is below 0."""
    return _affine(image, [1.0, 0.0, part * image.shape[1]], [0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    return _affine(image, [1.0, 0.0, 0.0], [0.0, 1.0, part * image.shape[0]])


def _affine(image: tf.Tensor, column: list, row: list) -> tf.Tensor:
    """Fetches the pixel at x, y from a x + b y + c, for both coordinates; as Pillow's AFFINE.

    Pillow counts from the corner of the first pixel, TensorFlow from its centre.
    """
    column = [*column[:2], column[2] + 0.5 * (column[0] + column[1]) - 0.5]
    row = [*row[:2], row[2] + 0.5 * (row[0] + row[1]) - 0.5]
    matrix = tf.stack([tf.cast(number, tf.float32) for number in (*column, *row, 0.0, 0.0)])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=matrix[tf.newaxis],
        output_shape=image.shape[:2],
        interpolation="NEAREST",
        fill_mode="CONSTANT",
        fill_value=FILL,
    )
    return tf.ensure_shape(moved[0], image.shape)


def _equalize_channel(channel: tf.Tensor) -> tf.Tensor:
    values = tf.cast(channel, tf.int32)
    counts = tf.math.bincount(tf.reshape(values, [-1]), minlength=256, maxlength=256)
    # Pixels of the brightest value do not count: they become 255.
    step = (tf.size(values) - counts[tf.reduce_max(values)]) // 255
    table = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.cast(tf.minimum(table, 255), tf.uint8)
    return tf.where(step == 0, channel, tf.gather(table, values))


def _grey(image: tf.Tensor) -> tf.Tensor:
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    # Luma of ITU-R 601 in 16 bits.
    return tf.cast((19595 * red + 38470 * green + 7471 * blue + 32768) // 65536, tf.float32)


def _blend(other: tf.Tensor | float, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _to_uint8(other + (tf.cast(image, tf.float32) - other) * factor)


def _window(pixels: tf.Tensor, row: int, column: int) -> tf.Tensor:
    height, width = pixels.shape[:2]
    return pixels[row : height - 2 + row, column : width - 2 + column]


def _to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(pixels, 0.0, 255.0), tf.uint8)


TRANSFORMS: dict[str, Transform] = {
    "Identity": identity,
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
}
