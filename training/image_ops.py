"""From the bytes of a photo to the pixels that a model sees.

The functions of slim's "inception" preprocessing, which all MobileNets were trained with. Resizing
uses TensorFlow 1's sampling grid (corners not aligned, no half-pixel centres, no antialiasing):
`tf.image.resize` samples elsewhere and costs accuracy on TF1 weights.
"""

from __future__ import annotations

import tensorflow as tf

CENTRAL_FRACTION = 0.875
ASPECT_RATIO_RANGE = (0.75, 1.33)
BRIGHTNESS_DELTA = 32.0 / 255.0
SATURATION_RANGE = (0.5, 1.5)


def decode_for_evaluation(
    jpeg: tf.Tensor, size: tuple[int, int], input_range: tuple[float, float]
) -> tf.Tensor:
    """Decodes, crops the central 87.5 %, resizes without regard to the aspect ratio, and scales.

    Args:
        jpeg: scalar string.
        size: height and width in pixels.
        input_range: the value of a black and of a white pixel.

    Returns:
        (height, width, 3) float32.
    """
    image = tf.io.decode_jpeg(jpeg, channels=3)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    top, left = _central_margin(height), _central_margin(width)
    image = image[top : height - top, left : width - left]
    return scale_pixels(_resize(image, size), input_range)


def decode_for_training(
    jpeg: tf.Tensor, size: tuple[int, int], seed: tf.Tensor, min_area: float
) -> tf.Tensor:
    """Decodes a random part of a photo and resizes it.

    Only the blocks of the crop are decoded. When no crop is found in 100 tries, the whole is used.

    Args:
        jpeg: scalar string.
        size: height and width in pixels.
        seed: (2,) int64; the same seed gives the same crop.
        min_area: smallest part of the photo's area; the largest is all of it.

    Returns:
        (height, width, 3) uint8.
    """
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(jpeg),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=ASPECT_RATIO_RANGE,
        area_range=(min_area, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], extent[:2]], axis=0)
    return to_uint8(_resize(tf.io.decode_and_crop_jpeg(jpeg, window, channels=3), size))


def decode_whole(jpeg: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes and resizes the whole photo, for training without augmentation.

    Returns:
        (height, width, 3) uint8.
    """
    return to_uint8(_resize(tf.io.decode_jpeg(jpeg, channels=3), size))


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounds float pixels in [0, 255]."""
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def scale_pixels(pixels: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Maps pixels of 0 to 255, any integer or float type, to `input_range` as float32."""
    black, white = input_range
    return tf.cast(pixels, tf.float32) / 255.0 * (white - black) + black


def _central_margin(side: tf.Tensor) -> tf.Tensor:
    side = tf.cast(side, tf.float64)  # slim computes in double precision, and truncates
    return tf.cast((side - side * CENTRAL_FRACTION) / 2.0, tf.int32)


def _resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    resized = tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=size, align_corners=False, half_pixel_centers=False
    )
    return tf.ensure_shape(resized[0], (*size, 3))
