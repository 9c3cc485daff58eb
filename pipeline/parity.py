"""The gate: nothing is published that disagrees with the model that was trained."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

from common.errors import UserError
from loaders.open import ModelRequest, open_checkpoint
from preprocessing.examples import parse_example
from training.image_ops import decode_for_evaluation
from training.models import ModelRecord
from training.shard_errors import named_shard_errors
from training.shards import Shards

_PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "parity_probe.py")
_PROBE_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class ParityRow:
    """How far an artifact is from the Keras model, over all images."""

    artifact: str
    largest_probability_difference: float
    top_1_agreement: float


@dataclasses.dataclass(frozen=True)
class ParityImages:
    """Real photos: as JPEG bytes, and as the model's input, (n, height, width, 3) float32."""

    jpeg: list[bytes]
    images: np.ndarray

    @classmethod
    def read(cls, shards: Shards, record: ModelRecord, count: int) -> ParityImages:
        """The first `count` records of the shards."""
        records = tf.data.TFRecordDataset(list(shards.paths)).take(count)
        with named_shard_errors(shards):
            jpeg = [parse_example(record_bytes)["jpeg"] for record_bytes in records]
        size = record.config.resolution
        images = [
            decode_for_evaluation(
                content, size, record.input_range, record.evaluation_preprocessing
            )
            for content in jpeg
        ]
        return cls([content.numpy() for content in jpeg], np.stack([i.numpy() for i in images]))


def compare(export_dir: str, expected: np.ndarray, inputs: ParityImages) -> list[ParityRow]:
    """Compares each artifact in `export_dir` with `expected`, (n, outputs) probabilities."""
    restored = open_checkpoint(os.path.join(export_dir, "checkpoint"), ModelRequest()).build()
    found = {
        "checkpoint, restored": tf.nn.softmax(restored(inputs.images, training=False)).numpy(),
        **_probe(os.path.join(export_dir, "saved_model"), inputs),
    }
    return [
        ParityRow(
            artifact,
            float(np.max(np.abs(probabilities - expected))),
            float(np.mean(np.argmax(probabilities, axis=1) == np.argmax(expected, axis=1))),
        )
        for artifact, probabilities in found.items()
    ]


def require_parity(rows: list[ParityRow], limit: float) -> None:
    """Stops an export that disagrees.

    Raises:
        UserError: it names the artifacts, and by how much they are off.
    """
    failed = [
        f"{row.artifact} is off by {row.largest_probability_difference:.2g} and agrees on"
        f" {row.top_1_agreement:.1%} of the images"
        for row in rows
        if not (row.largest_probability_difference <= limit and row.top_1_agreement == 1.0)
    ]
    if failed:
        raise UserError(
            f"the export disagrees with the model and is not written: {'; '.join(failed)}"
            f" (--max_probability_difference={limit:g})"
        )


def _probe(saved_model: str, inputs: ParityImages) -> dict[str, np.ndarray]:
    """Probabilities of the SavedModel's signatures, from a fresh process without our code."""
    with tempfile.TemporaryDirectory() as scratch:
        given, result = os.path.join(scratch, "in.npz"), os.path.join(scratch, "out.npz")
        np.savez(given, images=inputs.images, jpeg=np.array(inputs.jpeg, dtype=object))
        command = [sys.executable, "-I", _PROBE, saved_model, given, result]
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
        if process.returncode:
            last_line = (process.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"the SavedModel does not run in a fresh process: {last_line}")
        with np.load(result) as outputs:
            return {f"saved_model, {name}": outputs[name] for name in outputs.files}
