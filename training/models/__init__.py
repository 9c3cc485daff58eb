"""The MobileNet family: block tables, configurations and the builder.

What needs TensorFlow is imported at its first use: commands read the configurations for their
flags, and must answer `--help` at once.
"""

import importlib

from training.models.configs import (
    MobileNetConfig,
    MobileNetEdgeTPUConfig,
    MobileNetV1Config,
    MobileNetV2Config,
    MobileNetV3LargeConfig,
    MobileNetV3LargeMinimalisticConfig,
    MobileNetV3SmallConfig,
    MobileNetV3SmallMinimalisticConfig,
    make_config,
    model_names,
)
from training.models.record import ModelRecord, check_input_range

__all__ = [
    "MobileNetConfig",
    "MobileNetEdgeTPUConfig",
    "MobileNetV1Config",
    "MobileNetV2Config",
    "MobileNetV3LargeConfig",
    "MobileNetV3LargeMinimalisticConfig",
    "MobileNetV3SmallConfig",
    "MobileNetV3SmallMinimalisticConfig",
    "ModelRecord",
    "build_model",
    "check_input_range",
    "make_config",
    "model_names",
    "named_variables",
]

_NEED_TENSORFLOW = ("build_model", "named_variables")


def __getattr__(name: str):
    if name in _NEED_TENSORFLOW:
        return getattr(importlib.import_module("training.models.mobilenet"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
