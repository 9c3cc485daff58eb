"""What LiteRT's converter reads: a SavedModel of one signature, from images to logits."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator

import keras
import tensorflow as tf

from training.runtime import without_native_chatter


@contextlib.contextmanager
def saved_for_converter(model: keras.Model) -> Iterator[str]:
    """The path of a SavedModel that lasts as long as the block, which is quiet.

    Its signature `serving_default` takes `images`, (batch, height, width, 3) float32, and gives
    `logits`, (batch, outputs) float32.

    Args:
        model: gives logits.
    """
    with tempfile.TemporaryDirectory() as scratch, quiet_converter():
        module = _Logits(model)
        tf.saved_model.save(module, scratch, signatures={"serving_default": module.logits})
        yield scratch


@contextlib.contextmanager
def quiet_converter() -> Iterator[None]:
    """Keeps back what the converter says of its inner life, on Python's log and on stderr.

    Its errors are exceptions that carry their text.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with without_native_chatter(show_on_error=False):
            yield
    finally:
        logger.setLevel(level)


class _Logits(tf.Module):
    def __init__(self, model: keras.Model):
        super().__init__()
        self._weights = [variable.value for variable in model.variables]
        spec = tf.TensorSpec([None, *model.input.shape[1:]], name="images")

        @tf.function(input_signature=[spec])
        def logits(images):
            return {"logits": model(images, training=False)}

        self.logits = logits
