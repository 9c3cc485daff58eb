"""Runs a LiteRT file on blank images; a script of its own, for a file may crash LiteRT.

    python -I litert_probe.py FILE BATCH BYTES

It runs for one image and, where graph and memory let it, for BATCH, with BYTES of address space at
most. Exit code 0: it ran, and the last line printed says for how many images at once; 1: it did
not, and the last line says why.
"""

import contextlib
import sys


def limit_memory(num_bytes: int) -> None:
    """Has this process get no more address space, where the system can limit it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            num_bytes = min(num_bytes, most)
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, most))


def probe(path: str, batch: int) -> int:
    """Runs the file as our reader will; returns the exit code."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        print("it needs LiteRT: `pip install ai-edge-litert` brings it")
        return 1
    try:
        _run(Interpreter(model_path=path, num_threads=1), 1)
    except (RuntimeError, ValueError, MemoryError, OSError) as error:
        # Of memory that it does not get, LiteRT says nothing.
        print((str(error).strip() or "LiteRT cannot run it, and says not why").splitlines()[0])
        return 1
    most = 1
    with contextlib.suppress(RuntimeError, ValueError, MemoryError):
        _run(Interpreter(model_path=path, num_threads=1), batch)
        most = batch
    print(most)
    return 0


def _run(interpreter, batch: int) -> None:
    details = interpreter.get_input_details()
    if len(details) == 1 and len(details[0]["shape"]) == 4:
        shape = [batch, *details[0]["shape"][1:]]
        interpreter.resize_tensor_input(details[0]["index"], shape)
    interpreter.allocate_tensors()
    interpreter.invoke()


if __name__ == "__main__":
    limit_memory(int(sys.argv[3]))
    sys.exit(probe(sys.argv[1], int(sys.argv[2])))
