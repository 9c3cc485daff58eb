"""The `.keras` file: the deployment model as Keras itself opens it."""

from __future__ import annotations

import json

import keras

from pipeline.formats.reproducible import renumbered_json, rewrite_zip

_DATE = "date_saved"


def write_keras(deployed: keras.Model, path: str) -> None:
    """Writes `deployed`, made of Keras' own layers, which gives logits.

    `keras.models.load_model` opens it in any process, also without TensorFlow.
    """
    deployed.save(path)
    rewrite_zip(path, _without_chance)


def _without_chance(name: str, content: bytes) -> bytes:
    if name == "metadata.json":
        values = json.loads(content)
        return json.dumps({key: values[key] for key in values if key != _DATE}).encode("utf-8")
    return renumbered_json(content, "shared_object_id") if name == "config.json" else content
