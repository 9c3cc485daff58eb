"""What a training step can count on when it runs on a CPU."""

from __future__ import annotations

import functools
import os
import pathlib

import tensorflow as tf

# The variables by which oneDNN is told to leave newer instructions alone.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def suits(inputs: tf.Tensor) -> bool:
    """Whether ways of computing that are for one CPU may be taken with `inputs`.

    They are for float32 of a shape that is known as a graph is traced.
    """
    return computes_alone() and inputs.dtype == tf.float32 and inputs.shape.is_fully_defined()


@functools.cache
def computes_alone() -> bool:
    """Whether one CPU is all the devices there are.

    The same on every start, since a resumed run must compute the same bits.
    """
    accelerators = tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")
    return not accelerators and len(tf.config.list_logical_devices("CPU")) == 1


def uses_avx512() -> bool:
    """Whether oneDNN uses AVX-512: the processor has it, and nobody forbids it.

    False where Linux does not say what the processor has.
    """
    allowed = next((os.environ[name] for name in _LIMITS if os.environ.get(name)), "ALL").upper()
    if not allowed.startswith(("AVX512", "AVX10", "ALL", "DEFAULT")):
        return False
    try:
        return "avx512f" in pathlib.Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
