"""LiteRT files (`.tflite`): float and integer, any batch where the graph lets it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import tensorflow as tf

from common import files
from common.errors import UserError, first_line
from pipeline.evaluation import litert_probe
from pipeline.evaluation.loaded import (
    Loaded,
    as_logits,
    log_of_probabilities,
    require_image_input,
    require_one_row,
)
from training.runtime import without_native_chatter

NUM_THREADS = 2
_IDENTIFIER = b"TFL3"
_BATCH = 8  # images at once: more do not fit the processor's caches
_PROBE_SECONDS = 300
_PROBE_BYTES = 8 << 30  # of address space
_SOFTMAX_SCALE = 1 / 256  # of quantised probabilities, by LiteRT's own rule
_INTEGERS = (np.uint8, np.int8)


def load_litert(path: str) -> Loaded:
    """Opens a `.tflite` file.

    Raises:
        UserError: it is damaged, its operations are unknown here, or it is no classifier of images.
    """
    with files.local_copy(path) as local:  # fetched once: what is run is what was looked through
        content = files.read_bytes(local)
        _require_whole(path, content)
        most = _largest_batch(path, local)
    return _Model(path, content, most).loaded()


class _Model:
    """An interpreter, set to one number of images."""

    def __init__(self, path: str, content: bytes, most: int):
        self._path, self._content = path, content
        self._interpreter = self._allocated(1)
        self._input, self._output = self._details()
        self._resolution = require_image_input(path, [int(n) for n in self._input["shape"]])
        self._num_outputs = require_one_row(path, [int(n) for n in self._output["shape"]])
        self._batch = 1
        if int(self._input["shape"][0]) != 1:
            raise UserError(f"{path} cannot be set to one image at a time")
        if most > 1:
            self._try_batch(most)

    def loaded(self) -> Loaded:
        is_integer = self._input["dtype"] in _INTEGERS
        return Loaded(
            predict=self.predict,
            num_outputs=self._num_outputs,
            resolution=self._resolution,
            input_range=self._integer_range() if is_integer else None,
            in_graph=False,
            is_quantized=is_integer or self._holds_integers(),
        )

    def predict(self, images: tf.Tensor) -> tf.Tensor:
        images = self._quantized(np.asarray(images))
        count = len(images)
        missing = -count % self._batch
        if missing:
            images = np.concatenate([images, np.zeros_like(images[:1]).repeat(missing, axis=0)])
        parts = [self._run(images[i : i + self._batch]) for i in range(0, len(images), self._batch)]
        return self._logits(np.concatenate(parts)[:count])

    def _run(self, images: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])

    def _try_batch(self, batch: int) -> None:
        """Sets it to `batch` images where it then gives what it gives for one at a time."""
        shape = [batch, *self._input["shape"][1:]]
        info = np.iinfo if self._input["dtype"] in _INTEGERS else None
        low, high = (info(self._input["dtype"]).min, 120) if info else (-1.0, 1.0)
        images = np.random.default_rng(0).uniform(low, high, shape).astype(self._input["dtype"])
        singly = np.concatenate([self._run(images[i : i + 1]) for i in range(batch)])
        single = self._interpreter
        try:
            self._interpreter = self._allocated(batch)
            together = self._run(images)
        except (RuntimeError, ValueError):  # a shape is written out in the graph
            self._interpreter = single
            return
        if together.shape == singly.shape and np.allclose(
            together.astype(np.float64), singly.astype(np.float64), rtol=1e-3, atol=1e-4
        ):
            self._batch = batch
        else:
            self._interpreter = single

    def _allocated(self, batch: int):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError(
                f"{self._path} needs LiteRT: `pip install ai-edge-litert` brings it"
            ) from None
        threads = min(NUM_THREADS, os.cpu_count() or 1)
        with without_native_chatter(show_on_error=False):
            interpreter = Interpreter(model_content=self._content, num_threads=threads)
            details = interpreter.get_input_details()
            if len(details) == 1 and len(details[0]["shape"]) == 4:
                shape = [batch, *details[0]["shape"][1:]]
                interpreter.resize_tensor_input(details[0]["index"], shape)
            interpreter.allocate_tensors()
        return interpreter

    def _details(self) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(
                f"{self._path} is no classifier: it has {len(inputs)} inputs and {len(outputs)}"
                " outputs, and one of each is needed"
            )
        for what, tensor in (("takes", inputs[0]), ("gives", outputs[0])):
            if tensor["dtype"] not in (np.float32, *_INTEGERS):
                raise UserError(
                    f"{self._path} {what} {np.dtype(tensor['dtype']).name}: float32, uint8 or int8"
                    " is needed"
                )
        return inputs[0], outputs[0]

    def _integer_range(self) -> tuple[float, float]:
        """Real values of the smallest and the largest integer: black and white."""
        scale, zero_point = self._input["quantization"]
        info = np.iinfo(self._input["dtype"])
        if not scale:
            return 0.0, 255.0
        return scale * (info.min - zero_point), scale * (info.max - zero_point)

    def _quantized(self, images: np.ndarray) -> np.ndarray:
        dtype = self._input["dtype"]
        if dtype not in _INTEGERS:
            return images
        scale, zero_point = self._input["quantization"]
        info = np.iinfo(dtype)
        values = images / scale + zero_point if scale else images + info.min
        return np.clip(np.rint(values), info.min, info.max).astype(dtype)

    def _logits(self, outputs: np.ndarray) -> tf.Tensor:
        dtype = self._output["dtype"]
        if dtype not in _INTEGERS:
            return as_logits(tf.constant(outputs))
        scale, zero_point = self._output["quantization"]
        real = (outputs.astype(np.float32) - zero_point) * (scale or 1.0)
        if np.isclose(scale, _SOFTMAX_SCALE) and zero_point == np.iinfo(dtype).min:
            return log_of_probabilities(tf.constant(real), scale / 2)
        return tf.constant(real)

    def _holds_integers(self) -> bool:
        """Whether activations between float input and output are integers."""
        details = self._interpreter.get_tensor_details()
        return any(
            row["dtype"] == np.int8
            and len(row["shape"]) == 4
            and row["shape"][0] == self._batch
            # Kernels may begin with the same number, but have a scale for each channel.
            and len(row["quantization_parameters"]["scales"]) == 1
            and row["shape"][1] > 1
            for row in details
        )


def _require_whole(path: str, content: bytes) -> None:
    """Goes through all tables of the file: LiteRT itself does not look where they end.

    Raises:
        UserError: it is no LiteRT file, or a part of it lies beyond its end.
    """
    if content[4:8] != _IDENTIFIER:
        raise UserError(f"{path} is no LiteRT file: it does not begin as one")
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.Model.GetRootAs(content, 0)
        for number in range(model.BuffersLength()):
            buffer = model.Buffers(number)
            if not buffer.DataIsNone():
                buffer.DataAsNumpy()
            if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > len(content):
                raise ValueError("a buffer lies beyond the end")
        if not model.SubgraphsLength():
            raise ValueError("it holds no graph")
        for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
            _walk_graph(model, graph)
    except Exception as error:  # an offset may lead anywhere
        raise UserError(f"{path} is damaged or cut: {first_line(error)}") from None


def _walk_graph(model, graph) -> None:
    tensors, buffers = graph.TensorsLength(), model.BuffersLength()
    for tensor in map(graph.Tensors, range(tensors)):
        tensor.Name(), tensor.ShapeAsNumpy()
        if tensor.Buffer() >= buffers:
            raise ValueError("a tensor's buffer is missing")
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        if operator.OpcodeIndex() >= model.OperatorCodesLength():
            raise ValueError("an operator's kind is missing")
        used = itertools.chain(
            (operator.Inputs(i) for i in range(operator.InputsLength())),
            (operator.Outputs(i) for i in range(operator.OutputsLength())),
        )
        if any(not -1 <= index < tensors for index in used):
            raise ValueError("an operator's tensor is missing")


def _largest_batch(path: str, local: str) -> int:
    """Runs the file, for one image and for several, in a process of its own.

    A bad one may take its process with it, or ask for all memory there is.

    Returns:
        For how many it ran at once: 1 or `_BATCH`.

    Raises:
        UserError: it does not run.
    """
    script, local = litert_probe.__file__, os.path.abspath(local)
    command = [sys.executable, "-I", script, local, f"{_BATCH}", f"{_PROBE_BYTES}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{path} cannot be loaded: it ran for over {_PROBE_SECONDS} s on blank images"
        ) from None
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == 0:
        return int(lines[-1])
    reason = lines[-1] if lines and done.returncode == 1 else "LiteRT crashes over it"
    raise UserError(f"{path} cannot be loaded: {reason}")
