"""Runs a LiteRT file once, on blank images; a script of its own, for a file may crash LiteRT.

    python -I litert_probe.py FILE

Exit code 0: it ran; 1: it did not, and the last line printed says why.
"""

import sys


def main(path: str) -> int:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        print("it needs LiteRT: `pip install ai-edge-litert` brings it")
        return 1
    try:
        interpreter = Interpreter(model_path=path, num_threads=1)
        interpreter.allocate_tensors()
        interpreter.invoke()
    except (RuntimeError, ValueError, MemoryError, OSError) as error:
        print((str(error).strip() or type(error).__name__).splitlines()[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
