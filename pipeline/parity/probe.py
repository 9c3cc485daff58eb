"""Runs an exported artifact where nothing of this project is at hand.

Started as a script of its own in a fresh process, `python -I probe.py REQUEST.json`, with numpy and
the reader of the format alone: TensorFlow, Keras, LiteRT's interpreter or ONNX Runtime. Packages of
this project are refused even where they are installed. The request says:

    kind: "saved_model", "keras", "litert" or "onnx"
    path: the artifact
    inputs: .npz of `images`, (n, height, width, 3) float32, and of files, `jpeg`, (bytes,) uint8,
        laid end to end, with their `ends`, (n,) int64
    outputs: .npz to write
    blocked: names of packages that must not be imported
    signature: of a SavedModel, whose tensors are asked for
    sizes: None for the outputs alone; else tensors of so many numbers an image are written,
        whatever layer they come from, to find the layer where the artifact departs

Outputs are `logits`, (n, outputs); of a SavedModel `SIGNATURE/logits`, `SIGNATURE/probabilities`.
Tensors are (n, ...) float32 by their name.
"""

import json
import sys

import numpy as np

_BATCH = 16  # which also shows that the batch size is free


class _Refuse:
    """Stands first among the finders of modules."""

    def __init__(self, names):
        self._names = frozenset(names)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self._names:
            raise ImportError(f"it needs the module {name} of this project")


def _batches(*arrays):
    for start in range(0, len(arrays[0]), _BATCH):
        yield tuple(array[start : start + _BATCH] for array in arrays)


def _joined(parts):
    """Dictionaries of (m, ...) arrays, one a batch, as one of (n, ...) arrays."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read_inputs(path):
    with np.load(path) as given:
        images, joined, ends = given["images"], given["jpeg"].tobytes(), given["ends"].tolist()
    return images, [joined[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _signature_inputs(images, jpeg):
    return {"serving_default": ("images", images), "serving_jpeg": ("jpeg", np.array(jpeg, object))}


def run_saved_model(path, images, jpeg):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    outputs = {}
    for name, (argument, values) in _signature_inputs(images, jpeg).items():
        serve = loaded.signatures[name]
        parts = [serve(**{argument: tf.constant(part)}) for (part,) in _batches(values)]
        outputs |= {f"{name}/{key}": value for key, value in _joined(parts).items()}
    return outputs


def saved_model_tensors(path, images, jpeg, sizes, signature):
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    loaded = tf.saved_model.load(path)
    # Freezing inlines the functions, so that every op can be fetched; loops stay functions.
    frozen = convert_variables_to_constants_v2(
        loaded.signatures[signature], lower_control_flow=False
    )
    tensors = [
        tensor
        for op in frozen.graph.get_operations()
        for tensor in op.outputs
        if tensor.dtype == tf.float32 and op.type not in ("Const", "Placeholder")
    ]
    _, values = _signature_inputs(images, jpeg)[signature]
    found = frozen.prune(frozen.inputs, tensors)(tf.constant(values))
    named = {tensor.name: value.numpy() for tensor, value in zip(tensors, found, strict=True)}
    if signature == "serving_default":
        named["images"] = images
    return _of_sizes(named, len(images), sizes)


def _keras_model(path):
    import keras

    return keras.models.load_model(path, compile=False)


def run_keras(path, images, jpeg):
    model = _keras_model(path)
    parts = [{"logits": np.asarray(model(part, training=False))} for (part,) in _batches(images)]
    return _joined(parts)


def keras_tensors(path, images, jpeg, sizes, signature):
    import keras

    model = _keras_model(path)
    # A model inside the model cannot be looked into from outside.
    outer = [layer for layer in model.layers if not isinstance(layer, keras.Model)]
    outputs = {layer.name: layer.output for layer in outer}
    found = keras.Model(model.input, outputs)(images, training=False)
    return _of_sizes({k: np.asarray(v) for k, v in found.items()}, len(images), sizes)


def _interpreter(path, **settings):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1, **settings)
    interpreter.allocate_tensors()
    return interpreter


def _invoke(interpreter, image):
    """Runs one image, (1, height, width, 3) float32, whatever number format the input has."""
    (detail,) = interpreter.get_input_details()
    if detail["dtype"] != np.float32:
        scale, zero = detail["quantization"]
        ends = np.iinfo(detail["dtype"])
        image = np.clip(np.round(image / scale) + zero, ends.min, ends.max)
    interpreter.set_tensor(detail["index"], image.astype(detail["dtype"]))
    interpreter.invoke()


def _value(interpreter, detail):
    value = interpreter.get_tensor(detail["index"])
    if value.dtype in (np.int8, np.uint8, np.int16) and detail["quantization"][0]:
        scale, zero = detail["quantization"]
        return ((value.astype(np.float32) - zero) * scale).astype(np.float32)
    return value.astype(np.float32)


def run_litert(path, images, jpeg):
    interpreter = _interpreter(path)
    (detail,) = interpreter.get_output_details()
    parts = []
    for i in range(len(images)):
        _invoke(interpreter, images[i : i + 1])
        parts.append({"logits": _value(interpreter, detail)})
    return _joined(parts)


def litert_tensors(path, images, jpeg, sizes, signature):
    from ai_edge_litert.interpreter import OpResolverType

    interpreter = _interpreter(
        path,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    parts = []
    for i in range(len(images)):
        _invoke(interpreter, images[i : i + 1])
        part = {}
        for detail in interpreter.get_tensor_details():
            try:
                value = _value(interpreter, detail)
            except ValueError:  # it has no memory of its own
                continue
            if value.shape[:1] == (1,) and value.size in sizes:
                part[f"{detail['index']}:{detail['name']}"] = value.copy()
        parts.append(part)
    return {"images": images, **_joined(parts)}


def run_onnx(path, images, jpeg):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    parts = [{"logits": session.run(None, {given.name: part})[0]} for (part,) in _batches(images)]
    return _joined(parts)


def onnx_tensors(path, images, jpeg, sizes, signature):
    import onnx
    import onnxruntime

    model = onnx.load(path)
    outputs = {output.name for output in model.graph.output}
    inner = [name for node in model.graph.node for name in node.output if name not in outputs]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {given.name: images}), strict=True))
    # ONNX keeps channels in front.
    swapped = {
        f"{name} (channels last)": np.moveaxis(value, 1, -1)
        for name, value in found.items()
        if np.ndim(value) == 4
    }
    return _of_sizes({"images": images, **found, **swapped}, len(images), sizes)


def _of_sizes(tensors, count, sizes):
    return {
        name: value
        for name, value in tensors.items()
        if value.dtype == np.float32
        and value.ndim >= 2
        and len(value) == count
        and value.size // count in sizes
    }


RUN = {
    "saved_model": run_saved_model,
    "keras": run_keras,
    "litert": run_litert,
    "onnx": run_onnx,
}
TENSORS = {
    "saved_model": saved_model_tensors,
    "keras": keras_tensors,
    "litert": litert_tensors,
    "onnx": onnx_tensors,
}


def main(request_path):
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    sys.meta_path.insert(0, _Refuse(request["blocked"]))
    images, jpeg = _read_inputs(request["inputs"])
    kind, path, sizes = request["kind"], request["path"], request["sizes"]
    if sizes is None:
        outputs = RUN[kind](path, images, jpeg)
    else:
        outputs = TENSORS[kind](path, images, jpeg, frozenset(sizes), request["signature"])
    # A tensor's name may hold '/', which would be a folder in the archive.
    names = sorted(outputs)
    np.savez(
        request["outputs"],
        names=np.array(names, str),
        **{f"value_{i}": outputs[name] for i, name in enumerate(names)},
    )


if __name__ == "__main__":
    main(sys.argv[1])
