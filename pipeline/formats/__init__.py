"""The formats that a trained model is exported to, one module a format.

Names, places and the record of what was written are here; this module needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses

CHECKPOINT = "checkpoint"
SAVED_MODEL = "saved_model"
KERAS = "keras"
LITERT_FLOAT32 = "litert_float32"
LITERT_FLOAT16 = "litert_float16"
LITERT_DYNAMIC = "litert_dynamic"
LITERT_INT8 = "litert_int8"
ONNX = "onnx"

# Where each lies in an export's directory; a checkpoint and a SavedModel are directories.
PATHS = {
    CHECKPOINT: "checkpoint",
    SAVED_MODEL: "saved_model",
    KERAS: "model.keras",
    LITERT_FLOAT32: "litert/float32.tflite",
    LITERT_FLOAT16: "litert/float16.tflite",
    LITERT_DYNAMIC: "litert/dynamic.tflite",
    LITERT_INT8: "litert/int8.tflite",
    ONNX: "model.onnx",
}
LITERT = (LITERT_FLOAT32, LITERT_FLOAT16, LITERT_DYNAMIC, LITERT_INT8)
VARYING = (ONNX,)  # the same model may give other bytes: tf2onnx goes through sets of names
DEFAULT = (CHECKPOINT, SAVED_MODEL, LITERT_FLOAT32)
ALL = "all"  # as a format's name: every one that can be made

# Beside the artifacts.
LABELS = "labels.txt"
MODEL_CARD = "MODEL_CARD.md"
MANIFEST = "export.json"  # written last


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One format of an export, as `export.json` records it.

    Attributes:
        format: one of the names above.
        path: file or directory, relative to the export.
        bytes: size of all files.
        sha256: of the file, or of the names and contents of a directory's files.
        notes: what the conversion did that a user should know; '' when there is nothing.
    """

    format: str
    path: str
    bytes: int
    sha256: str
    notes: str = ""
