"""Full-integer LiteRT files: calibrated on real photos, or with the ranges that were trained.

What is here needs no TensorFlow before `write_int8` is asked for; commands read the flags.
"""

import importlib

from pipeline.formats.int8.flags import Int8Flags

__all__ = ["Int8Flags", "Int8Outcome", "write_int8"]


def __getattr__(name: str):
    if name in ("Int8Outcome", "write_int8"):
        return getattr(importlib.import_module("pipeline.formats.int8.writing"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
