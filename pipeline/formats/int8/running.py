"""Runs LiteRT files: what they answer, and how long one image takes."""

from __future__ import annotations

import statistics
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from training.runtime import without_native_chatter

_BATCH = 8  # images at once
_WARM_UP_RUNS, _TIMED_RUNS = 3, 20


def logits_of(content: bytes, images: np.ndarray, num_threads: int = 2) -> np.ndarray:
    """Logits of a file with one input and one output, of float or 8-bit integers.

    Args:
        content: the LiteRT file.
        images: (n, height, width, 3) float32.
        num_threads: threads of the interpreter.

    Returns:
        (n, outputs) float32.
    """
    interpreter = _allocated(content, num_threads=num_threads)
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    images = _to_integers(images, given)
    outputs = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        interpreter.resize_tensor_input(given["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(answer["index"]).copy())
    return _from_integers(np.concatenate(outputs), answer)


def latency_ms(content: bytes) -> float:
    """Median milliseconds of one image on one thread, with the interpreter's default delegate."""
    interpreter = _allocated(content, num_threads=1)
    seconds = []
    for _ in range(_WARM_UP_RUNS + _TIMED_RUNS):
        start = time.perf_counter()
        interpreter.invoke()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[_WARM_UP_RUNS:])


def operators(content: bytes) -> list[tuple[str, str]]:
    """Kind and output tensor's name of every operator, in order of execution."""
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = _allocated(content, experimental_op_resolver_type=resolver)
    names = {row["index"]: row["name"] for row in interpreter.get_tensor_details()}
    # The interpreter has no public list of its operators.
    return [(row["op_name"], names[row["outputs"][0]]) for row in interpreter._get_ops_details()]


def _allocated(content: bytes, **options) -> Interpreter:
    """An interpreter for one image, made without a note on its delegate."""
    with without_native_chatter():
        interpreter = Interpreter(model_content=content, **options)
        interpreter.allocate_tensors()
    return interpreter


def _to_integers(images: np.ndarray, details: dict) -> np.ndarray:
    kind = details["dtype"]
    if kind == np.float32:
        return images
    scale, zero = details["quantization"]
    limits = np.iinfo(kind)
    return np.clip(np.round(images / scale) + zero, limits.min, limits.max).astype(kind)


def _from_integers(values: np.ndarray, details: dict) -> np.ndarray:
    if details["dtype"] == np.float32:
        return values
    scale, zero = details["quantization"]
    return ((values.astype(np.int32) - zero) * scale).astype(np.float32)
