"""The ONNX file, by tf2onnx, where that is installed."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

if TYPE_CHECKING:
    import onnx

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")  # the last one runs the file in the gate
_OPSET = 17  # read by every runtime since the middle of 2022


def missing_packages() -> list[str]:
    """What would have to be installed to write ONNX and to check it."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def write_onnx(deployed: keras.Model, path: str) -> None:
    """Writes `deployed`: `images` in, (batch, height, width, 3) float32, `logits` out."""
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    spec = tf.TensorSpec([None, *deployed.input.shape[1:]], name="images")
    function = tf.function(lambda images: {"logits": deployed(images, training=False)})
    model, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=_OPSET)
    _rename(model.graph)
    onnx.checker.check_model(model)
    with open(path, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))


def _rename(graph: onnx.GraphProto) -> None:
    """Numbers what is inside the graph anew; the converter counts on from model to model."""
    ends = [*graph.input, *graph.output]
    for end in ends:
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    names = {"": "", **{end.name: end.name for end in ends}}
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        for tensors in (node.input, node.output):
            tensors[:] = [names.setdefault(name, f"t{len(names)}") for name in tensors]
    places = {name: place for place, name in enumerate(names)}
    by_use = sorted(graph.initializer, key=lambda tensor: places[tensor.name])
    for tensor in by_use:
        tensor.name = names[tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(by_use)
    del graph.value_info[:]
    graph.doc_string = ""
