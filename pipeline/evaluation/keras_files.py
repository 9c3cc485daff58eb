"""`.keras` files: looked through before Keras opens them, since a config can name any code."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from common import files
from common.errors import UserError, first_line
from pipeline.evaluation.loaded import (
    Loaded,
    as_logits,
    require_image_input,
    require_one_row,
)
from training.models import layers, quantized

_CONFIG = "config.json"
_NEEDED = ("metadata.json", _CONFIG, "model.weights.h5")
_MOST_BYTES = 4 << 30  # unpacked; the largest MobileNet has 30 MB
_OURS = "mobilenet_pipeline>"
_OUR_MODULES = (layers.__name__, quantized.__name__)

# Modules whose classes a config may name. All that Keras has in them is made of numbers alone, but
# for the classes below.
_MODULES = {
    "keras",
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.models",
    "keras.regularizers",
    "keras.src.models.functional",
    "keras.src.models.sequential",
    *_OUR_MODULES,
}
_OPERATIONS = "keras.src.ops."
# Those that run code out of the file, or open other files.
_RUN_CODE = frozenset(
    ["Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "function", "__lambda__"]
)


def load_keras_file(path: str) -> Loaded:
    """Opens a `.keras` file.

    Raises:
        UserError: it is damaged, not safe to open, or no classifier of images.
    """
    with files.local_copy(path) as local:
        _require_harmless(path, local)
        try:
            model = keras.saving.load_model(local, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises many kinds for a damaged file
            raise UserError(f"{path} cannot be loaded: {first_line(error)}") from None
    if len(model.inputs or ()) != 1 or len(model.outputs or ()) != 1:
        raise UserError(f"{path} is no classifier: it needs one input and one output")

    def predict(images: tf.Tensor) -> tf.Tensor:
        return as_logits(model(images, training=False))

    return Loaded(
        predict=predict,
        num_outputs=require_one_row(path, model.outputs[0].shape),
        resolution=require_image_input(path, model.inputs[0].shape),
        input_range=_range_of(model),
    )


def _range_of(model: keras.Model) -> tuple[float, float] | None:
    """What the model does to pixels first tells which ones it wants."""
    for layer in model.layers[:3]:
        if isinstance(layer, keras.layers.Rescaling) and isinstance(layer.scale, (int, float)):
            # Whatever it makes of them, what is scaled down by hundreds are bytes.
            return (0.0, 255.0) if layer.scale < 1 / 64 else (0.0, 1.0)
    return None


def _require_harmless(path: str, local: str) -> None:
    """Raises a `UserError` unless the file is whole and its config names Keras' own layers."""
    try:
        with zipfile.ZipFile(local) as archive:
            for member in archive.infolist():
                _require_inside(path, member)
            if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                raise UserError(f"{path} is not opened: unpacked it would be over 4 GB")
            if missing := set(_NEEDED) - set(archive.namelist()):
                raise UserError(f"{path} is no .keras file: it lacks {', '.join(sorted(missing))}")
            if bad := archive.testzip():
                raise UserError(f"{path} is damaged: the checksum of {bad} is wrong")
            config = json.loads(archive.read(_CONFIG))
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is no .keras file, or is cut: {first_line(error)}") from None
    except ValueError:
        raise UserError(f"{path} is damaged: its {_CONFIG} is not JSON") from None
    for node in _serialized(config):
        _require_own_class(path, node)


def _require_inside(path: str, member: zipfile.ZipInfo) -> None:
    parts = member.filename.replace("\\", "/").split("/")
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if parts[0] == "" or ".." in parts or ":" in parts[0] or is_link:
        raise UserError(
            f"{path} is not opened: its member {member.filename!r} would be unpacked elsewhere"
        )


def _serialized(value: Any) -> Iterator[dict]:
    """All objects in a config that name a class."""
    waiting = [value]  # no recursion: a hostile file may be nested a million deep
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _require_own_class(path: str, node: dict) -> None:
    name, module = str(node["class_name"]), node.get("module")
    registered = str(node.get("registered_name") or "")
    # Nothing but the parts of a shape or a tensor's description has no module.
    is_plain = module in (None, "builtins") and name.startswith("__") and name != "__lambda__"
    is_keras = module in _MODULES or str(module).startswith(_OPERATIONS)
    is_registered = ">" in registered and not registered.startswith(_OURS)
    if name in _RUN_CODE or not (is_plain or is_keras) or is_registered:
        what = f"{module}.{name}" if module else name
        raise UserError(
            f"{path} is not opened: it holds {what}, which may run code of its own; only Keras'"
            " plain layers are opened"
        )
