"""One side of `benchmarks.latency`, in a process of its own: some inferences for each line.

It imports nothing of the project, as whoever serves an export need not have it. For each line of
standard input, a number, it makes as many inferences and answers with a JSON list of their seconds
on the clock and of the processor.

    python benchmarks/latency_sides.py KIND PATH THREADS BATCH LOW HIGH
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np

WARM_UP = 10


def saved_model(path: str, threads: int, batch: int, low: float, high: float) -> Callable:
    """The signature `serving_default` of a SavedModel."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]
    ((name, spec),) = serve.structured_input_signature[1].items()
    images = tf.constant(_images((batch, *spec.shape[1:]), low, high))

    def infer(loaded=loaded) -> np.ndarray:  # which keeps its variables alive
        return next(iter(serve(**{name: images}).values())).numpy()

    return infer


def litert(path: str, threads: int, batch: int, low: float, high: float) -> Callable:
    """A LiteRT file, with the kernels that the interpreter takes by itself."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    (there,) = interpreter.get_input_details()
    shape = (batch, *map(int, there["shape"][1:]))
    if tuple(there["shape"]) != shape:
        interpreter.resize_tensor_input(there["index"], shape)
    interpreter.allocate_tensors()
    kind = there["dtype"]
    if np.issubdtype(kind, np.integer):
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
    images = _images(shape, low, high).astype(kind)
    output = interpreter.get_output_details()[0]["index"]

    def infer() -> np.ndarray:
        interpreter.set_tensor(there["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return infer


def _images(shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


def serve(infer: Callable) -> None:
    """Makes inferences for each line that comes in."""
    for _ in range(WARM_UP):
        infer()
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, processor = [], []
        for _ in range(int(line)):
            start, start_of_processor = time.perf_counter(), time.process_time()
            infer()
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - start_of_processor)
        print(json.dumps([seconds, processor]), flush=True)


SIDES = {"saved_model": saved_model, "litert": litert}

if __name__ == "__main__":
    kind, path, threads, batch, low, high = sys.argv[1:]
    serve(SIDES[kind](path, int(threads), int(batch), float(low), float(high)))
