"""Runs a SavedModel where nothing of this project is at hand.

Started as a script of its own in a fresh process, with TensorFlow and numpy alone:

    python -I parity_probe.py SAVED_MODEL INPUTS.npz OUTPUTS.npz

INPUTS holds `images` (batch, height, width, 3) float32 and `jpeg` (batch,) bytes; OUTPUTS gets the
probabilities of both signatures.
"""

import sys

import numpy as np
import tensorflow as tf


def main(saved_model: str, inputs: str, outputs: str) -> None:
    signatures = tf.saved_model.load(saved_model).signatures
    with np.load(inputs, allow_pickle=True) as given:
        images, jpeg = given["images"], list(given["jpeg"])
    np.savez(
        outputs,
        serving_default=signatures["serving_default"](images=tf.constant(images))["probabilities"],
        serving_jpeg=signatures["serving_jpeg"](jpeg=tf.constant(jpeg))["probabilities"],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
