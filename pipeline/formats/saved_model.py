"""The SavedModel: two signatures around one model, labels among its assets."""

from __future__ import annotations

import os
import tempfile

import keras
import tensorflow as tf

from pipeline.formats import LABELS
from pipeline.formats.labels import label_text
from pipeline.formats.reproducible import rewrite_saved_model
from training.image_ops import decode_for_evaluation
from training.models import ModelRecord
from training.models.mobilenet import weights_of


class _Serving(tf.Module):
    """What is saved: the weights as plain variables, and functions that hold them."""

    def __init__(self, model: keras.Model, record: ModelRecord, labels_path: str):
        super().__init__()
        self._weights = [variable.value for variable in weights_of(model).values()]
        self._labels = tf.saved_model.Asset(labels_path)
        height, width = size = record.config.resolution

        def outputs(images):
            logits = model(images, training=False)
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

        @tf.function(input_signature=[tf.TensorSpec([None, height, width, 3], name="images")])
        def serve_images(images):
            return outputs(images)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpeg")])
        def serve_jpeg(jpeg):
            images = tf.map_fn(
                lambda content: decode_for_evaluation(
                    content, size, record.input_range, record.evaluation_preprocessing
                ),
                jpeg,
                fn_output_signature=tf.TensorSpec([height, width, 3]),
            )
            return outputs(images)

        self.serve_images, self.serve_jpeg = serve_images, serve_jpeg


def write_saved_model(model: keras.Model, record: ModelRecord, directory: str) -> None:
    """Writes `model`, which gives logits, with the signatures of `signatures_of`."""
    with tempfile.TemporaryDirectory() as scratch:  # saving copies the asset from where it lies
        labels_path = os.path.join(scratch, LABELS)
        with open(labels_path, "w", encoding="utf-8") as file:
            file.write(label_text(record))
        serving = _Serving(model, record, labels_path)
        signatures = {"serving_default": serving.serve_images, "serving_jpeg": serving.serve_jpeg}
        tf.saved_model.save(serving, directory, signatures=signatures)
    rewrite_saved_model(directory)
    record.write(directory)


def signatures_of(record: ModelRecord) -> dict:
    """The SavedModel's signatures, for people to read.

    `serving_default` takes `images`, (batch, height, width, 3) float32 in the record's input range;
    `serving_jpeg` takes `jpeg`, (batch,) strings of JPEG files, and does the evaluation
    preprocessing itself. Both give `logits` and `probabilities`, (batch, outputs) float32.
    """
    height, width = record.config.resolution
    outputs = f"float32 [None, {record.config.num_classes}]"
    return {
        name: {"inputs": inputs, "outputs": dict.fromkeys(("logits", "probabilities"), outputs)}
        for name, inputs in (
            ("serving_default", {"images": f"float32 [None, {height}, {width}, 3]"}),
            ("serving_jpeg", {"jpeg": "string [None]"}),
        )
    }
