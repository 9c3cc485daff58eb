"""How TensorFlow is started: settings that must stand before its first import."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def start() -> None:
    """Sets TensorFlow's environment and imports it; commands call this before all else.

    oneDNN is off by default on processors without AVX-512, where it is worth 1.2 to 1.65 times the
    speed of a training step. What the user has set already is kept; without oneDNN it is the
    allocator that can be helped. `describe` says what became of it.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if not _has_onednn():
        _keep_freed_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with without_native_chatter():
        import tensorflow as tf

        tf.config.list_physical_devices()


def describe() -> list[str]:
    """What speeds up training steps on this machine, one line for each; after `start`."""
    from training.models import cpu

    lines = ["oneDNN kernels" if _has_onednn() else "freed memory is kept (oneDNN is off)"]
    lines.append("fused batch norm")
    if cpu.computes_alone():
        lines.append("expansions with their batch norm and activation as matrix products")
        lines.append("batch norm, activation and squeeze-and-excite as one cluster")
    return lines


def _has_onednn() -> bool:
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"


def _keep_freed_memory() -> None:
    """Has glibc keep what is freed, instead of the kernel clearing new pages at every step.

    Without oneDNN, which has pools of its own, that is worth up to 1.5 times the speed. A user's
    own MALLOC_* variables are kept; where the C library is another one, nothing happens.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**28)


@contextlib.contextmanager
def without_native_chatter(show_on_error: bool = True) -> Iterator[None]:
    """Keeps lines such as "Could not find cuda drivers" from standard error.

    Native code writes them, to which the log levels of Python and TensorFlow do not apply.

    Args:
        show_on_error: whether what was caught is shown if the block fails; not where the exception
            says it all, or is expected.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        except BaseException:
            if show_on_error:
                caught.seek(0)
                os.write(kept, caught.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def set_seed(seed: int) -> None:
    """Seeds the initial weights."""
    import keras

    keras.utils.set_random_seed(seed)


_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def set_precision(precision: str) -> None:
    """The arithmetic of models that are built from now on; weights stay float32."""
    import keras

    keras.mixed_precision.set_global_policy(_POLICIES[precision])
