"""SavedModels, ours and others': the signature is found by what it takes and gives."""

from __future__ import annotations

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from common import files
from common.errors import UserError, first_line
from pipeline.evaluation.loaded import (
    SAVED_MODEL_FILE,
    Loaded,
    as_logits,
    in_chunks,
    require_image_input,
    require_one_row,
)
from pipeline.evaluation.operations import find_foreign_operation

_DEFAULT = "serving_default"
_PREFERRED_OUTPUTS = ("logits", "probabilities")


def load_saved_model(path: str) -> Loaded:
    """Opens the SavedModel in the directory `path`.

    Raises:
        UserError: it is damaged, does what a model has no business with, or has no signature from
            images to classes.
    """
    require_harmless(path, path)
    try:
        model = tf.saved_model.load(path)
        signatures = model.signatures
    except Exception as error:  # TensorFlow raises many kinds for a damaged file
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from None
    if not signatures:
        raise UserError(
            f"{path} has no signature to call: save it with one, as `model.export` and"
            " `python -m pipeline.export` do"
        )
    name = _DEFAULT if _DEFAULT in signatures else next(iter(signatures))
    if name != _DEFAULT and len(signatures) > 1:
        raise UserError(
            f"{path} has no signature {_DEFAULT!r}, only {', '.join(map(repr, sorted(signatures)))}"
        )
    serve = signatures[name]
    inputs = serve.structured_input_signature[1]
    if len(inputs) != 1:
        raise UserError(f"signature {name!r} of {path} takes {_shown(inputs)}: one input is needed")
    ((input_name, spec),) = inputs.items()
    if spec.dtype not in (tf.float32, tf.uint8):
        raise UserError(
            f"signature {name!r} of {path} takes {_shown(inputs)}: float32 or uint8 images are"
            " needed"
        )
    output_name = _choose_output(path, name, serve.structured_outputs)
    shape = serve.structured_outputs[output_name].shape

    def predict(images: tf.Tensor) -> tf.Tensor:
        if spec.dtype == tf.uint8:
            images = tf.cast(tf.clip_by_value(tf.round(images), 0.0, 255.0), tf.uint8)
        outputs = serve(**{input_name: images})[output_name]
        return outputs if output_name == "logits" else as_logits(outputs)

    predict.model = model  # it owns the variables, which `serve` does not keep alive
    batch = spec.shape[0] if spec.shape.rank else None
    return Loaded(
        predict=in_chunks(predict, batch) if batch else predict,
        num_outputs=require_one_row(path, shape.as_list() if shape.rank else []),
        resolution=require_image_input(path, spec.shape.as_list() if spec.shape.rank else []),
        input_range=(0.0, 255.0) if spec.dtype == tf.uint8 else None,
        in_graph=not batch,
    )


def require_harmless(directory: str, shown_as: str) -> None:
    """Makes sure that a SavedModel holds a graph, and no operation that reaches beyond the model.

    Args:
        directory: of the SavedModel.
        shown_as: what a message calls it.

    Raises:
        UserError: it does not.
    """
    content = files.read_bytes(files.join(directory, SAVED_MODEL_FILE))
    try:
        model = saved_model_pb2.SavedModel.FromString(content)
    except DecodeError:
        raise UserError(
            f"{shown_as} cannot be loaded: {SAVED_MODEL_FILE} is damaged or cut"
        ) from None
    for graph in model.meta_graphs:
        if operation := find_foreign_operation(graph):
            raise UserError(
                f"{shown_as} is not opened: it holds the operation {operation}, which reaches"
                " beyond the model; open only what you trust"
            )


def _choose_output(path: str, signature: str, outputs: dict) -> str:
    if len(outputs) == 1:
        return next(iter(outputs))
    for name in _PREFERRED_OUTPUTS:
        if name in outputs:
            return name
    raise UserError(
        f"signature {signature!r} of {path} gives {_shown(outputs)}: one output, or one called"
        " 'logits', is needed"
    )


def _shown(specs: dict) -> str:
    words = [f"{name} {spec.dtype.name} {spec.shape}" for name, spec in sorted(specs.items())]
    return ", ".join(words) or "nothing"
