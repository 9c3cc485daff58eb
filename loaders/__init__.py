"""TF1 (slim) checkpoints into Keras models.

The loaders are imported at their first use, since they need TensorFlow.
"""

import importlib

__all__ = [
    "load_mobilenet_edgetpu",
    "load_mobilenet_v1",
    "load_mobilenet_v2",
    "load_mobilenet_v3_large",
    "load_mobilenet_v3_small",
]


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module("loaders.loaders"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
