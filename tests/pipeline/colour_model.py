"""Classifiers that look at the mean colour of an image alone, so that NumPy can do the same."""

import keras
import numpy as np
import tensorflow as tf

RESOLUTION = 32


def colour_model(
    kernel: np.ndarray,
    bias: np.ndarray | None = None,
    threshold: float | None = None,
    size: int | None = RESOLUTION,
    softmax: bool = False,
) -> keras.Model:
    """Mean over the image, a dense layer, and if asked for a softmax.

    Args:
        kernel: (3, outputs).
        bias: (outputs,); zeros by default.
        threshold: below it, pixels count as 0; None for no threshold.
        size: of the input; None for any.
        softmax: whether it gives probabilities instead of logits.
    """
    images = keras.Input((size, size, 3), name="images")
    x = images
    if threshold is not None:
        x = keras.layers.ReLU(threshold=threshold)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    activation = "softmax" if softmax else None
    dense = keras.layers.Dense(kernel.shape[1], activation=activation)
    model = keras.Model(images, dense(x))
    dense.set_weights([kernel, np.zeros(kernel.shape[1]) if bias is None else bias])
    return model


def to_litert(model: keras.Model, images: np.ndarray | None = None, io=None) -> bytes:
    """A LiteRT file; with `images` in 8 bits, calibrated on them, and with `io` integers outside.

    Args:
        model: what is converted.
        images: (n, height, width, 3) float32.
        io: TensorFlow's type of input and output.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if images is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if io is not None:
        converter.inference_input_type = converter.inference_output_type = io
    return converter.convert()


def images_by_hand(data_dir, size: int = RESOLUTION, split: str = "validation"):
    """Images in [-1, 1], class indices and file names in the order of the shards; no code of ours.

    Classes are those of the drawn photos, whose file names begin with them.
    """
    from tests.pipeline.conftest import CLASSES

    images, labels, names = [], [], []
    for path in sorted(data_dir.glob(f"{split}-*")):
        for record in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            (jpeg,) = features["image/encoded"].bytes_list.value
            (name,) = features["image/filename"].bytes_list.value
            pixels = tf.image.convert_image_dtype(tf.image.decode_jpeg(jpeg, 3), tf.float32)
            cropped = tf.image.central_crop(pixels, 0.875)[tf.newaxis]
            images.append(tf.compat.v1.image.resize_bilinear(cropped, [size, size])[0] * 2 - 1)
            labels.append(CLASSES.index(name.decode().split("_")[0]))
            names.append(name.decode())
    return np.stack(images), np.array(labels), names
