"""From the bytes of a photo to the pixels that a model sees.

The functions of slim's "inception" preprocessing, which all MobileNets were trained with, and the
"bicubic" evaluation of newer recipes. The former resizes on TensorFlow 1's sampling grid (corners
not aligned, no half-pixel centres, no antialiasing): `tf.image.resize` samples elsewhere and costs
accuracy on TF1 weights.
"""

from __future__ import annotations

import tensorflow as tf

from common.errors import UsageError

CENTRAL_FRACTION = 0.875
ASPECT_RATIO_RANGE = (0.75, 1.33)
BRIGHTNESS_DELTA = 32.0 / 255.0
SATURATION_RANGE = (0.5, 1.5)
_CHANNELS = 3


def decode_for_evaluation(
    jpeg: tf.Tensor,
    size: tuple[int, int],
    input_range: tuple[float, float],
    preprocessing: str = "inception",
) -> tf.Tensor:
    """Decodes, takes the centre, resizes, and scales.

    Args:
        jpeg: scalar string, a JPEG or another format that TensorFlow decodes.
        size: height and width in pixels.
        input_range: the value of a black and of a white pixel.
        preprocessing: 'inception' crops the central 87.5 % of each side, and resizes bilinearly
            without regard to the aspect ratio; 'bicubic' keeps the aspect ratio: it resizes with
            antialiasing so that the model's input is 87.5 % of the shorter side, and crops that.

    Returns:
        (height, width, 3) float32.
    """
    image = _decode(jpeg)
    if preprocessing == "inception":
        pixels = _resize(_central_part(image), size)
    elif preprocessing == "bicubic":
        pixels = _bicubic_centre(image, size)
    else:
        raise UsageError(f"preprocessing {preprocessing!r} is neither 'inception' nor 'bicubic'")
    return scale_pixels(pixels, input_range)


def decode_for_training(
    jpeg: tf.Tensor,
    size: tuple[int, int],
    seed: tf.Tensor,
    min_area: float,
    fused: bool = True,
) -> tf.Tensor:
    """Decodes a random part of a photo and resizes it.

    When no crop is found in 100 tries, the whole is used.

    Args:
        jpeg: scalar string.
        size: height and width in pixels.
        seed: (2,) int64; the same seed gives the same crop.
        min_area: smallest part of the photo's area; the largest is all of it.
        fused: decode only the blocks of the crop; False for photos that may be other than JPEG,
            which are decoded whole. Both give the same crop.

    Returns:
        (height, width, 3) uint8.
    """
    if fused:
        window = _random_window(tf.io.extract_jpeg_shape(jpeg), seed, min_area)
        return to_uint8(_resize(tf.io.decode_and_crop_jpeg(jpeg, window, _CHANNELS), size))
    image = _decode(jpeg)
    top, left, height, width = tf.unstack(_random_window(tf.shape(image), seed, min_area))
    return to_uint8(_resize(image[top : top + height, left : left + width], size))


def decode_whole(jpeg: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes and resizes the whole photo, for training without augmentation.

    Args:
        jpeg: scalar string, a JPEG or another format that TensorFlow decodes.
        size: height and width in pixels.

    Returns:
        (height, width, 3) uint8.
    """
    return to_uint8(_resize(_decode(jpeg), size))


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounds float pixels in [0, 255]: bilinear resizing does not leave this range."""
    return tf.cast(tf.round(pixels), tf.uint8)


def scale_pixels(pixels: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Maps pixels of 0 to 255, any integer or float type, to `input_range` as float32."""
    black, white = input_range
    return tf.cast(pixels, tf.float32) / 255.0 * (white - black) + black


def _decode(photo: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(photo, channels=_CHANNELS, expand_animations=False)


def _random_window(shape: tf.Tensor, seed: tf.Tensor, min_area: float) -> tf.Tensor:
    """Top, left, height and width of a random part of an image, as (4,) int32."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=ASPECT_RATIO_RANGE,
        area_range=(min_area, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], axis=0)


def _central_part(image: tf.Tensor) -> tf.Tensor:
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    top, left = _central_margin(height), _central_margin(width)
    return image[top : height - top, left : width - left]


def _central_margin(side: tf.Tensor) -> tf.Tensor:
    side = tf.cast(side, tf.float64)  # slim computes in double precision, and truncates
    return tf.cast((side - side * CENTRAL_FRACTION) / 2.0, tf.int32)


def _bicubic_centre(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """As torchvision's Resize and CenterCrop; of a size that is not square, each side fits."""
    shape = tf.shape(image)[:2]
    targets = tf.constant([round(side / CENTRAL_FRACTION) for side in size])
    # The side that the target fills, and the other one in proportion, truncated, in integers.
    is_filled = targets[0] * shape[1] >= targets[1] * shape[0]
    resized = tf.where(
        is_filled,
        tf.stack([targets[0], targets[0] * shape[1] // shape[0]]),
        tf.stack([targets[1] * shape[0] // shape[1], targets[1]]),
    )
    # As Pillow: one side after the other, with whole pixels between black and white in between,
    # for a cubic overshoots at edges.
    pixels = _bicubic(image, tf.stack([shape[0], resized[1]]))
    margins = tf.cast(tf.round((resized - tf.constant(size)) / 2), tf.int32)
    top, left = margins[0], margins[1]
    pixels = _bicubic(pixels[:, left : left + size[1]], tf.stack([resized[0], size[1]]))
    return tf.ensure_shape(pixels[top : top + size[0]], (*size, _CHANNELS))


def _bicubic(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    pixels = tf.image.resize(image, size, method="bicubic", antialias=True)
    return tf.clip_by_value(tf.round(pixels), 0.0, 255.0)


def _resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    # The kernel gives the same bits from uint8, but is vectorised for float only: twice as fast.
    pixels = tf.cast(image, tf.float32)
    resized = tf.raw_ops.ResizeBilinear(
        images=pixels[tf.newaxis], size=size, align_corners=False, half_pixel_centers=False
    )
    return tf.ensure_shape(resized[0], (*size, _CHANNELS))
