"""keras.applications' model of the same architecture, exported as its users do."""

from __future__ import annotations

import os
from collections.abc import Iterable

from common.errors import UsageError
from pipeline import formats
from training.models import ModelRecord

_BUILDERS = {
    "mobilenet_v1": ("MobileNet", {}),
    "mobilenet_v2": ("MobileNetV2", {}),
    "mobilenet_v3_small": ("MobileNetV3Small", {"minimalistic": False}),
    "mobilenet_v3_large": ("MobileNetV3Large", {"minimalistic": False}),
    "mobilenet_v3_small_minimalistic": ("MobileNetV3Small", {"minimalistic": True}),
    "mobilenet_v3_large_minimalistic": ("MobileNetV3Large", {"minimalistic": True}),
}


def require_rival(record: ModelRecord) -> None:
    """Makes sure that keras.applications has that architecture.

    Raises:
        UsageError: it has not.
    """
    if record.config.name not in _BUILDERS:
        raise UsageError(
            f"keras.applications has no {record.config.name}: leave --beside out, or take an"
            f" export of {', '.join(_BUILDERS)}"
        )


def write_rival(record: ModelRecord, names: Iterable[str], directory: str) -> dict[str, str]:
    """Exports it with random weights; returns the path by format.

    Args:
        record: of the export that it is to stand beside.
        names: formats that are wanted; those that Keras does not write are left out.
        directory: where they go.
    """
    import keras
    import tensorflow as tf

    builder, options = _BUILDERS[record.config.name]
    if "minimalistic" in options:
        options = {**options, "include_preprocessing": False}
    model = getattr(keras.applications, builder)(
        input_shape=(*record.config.resolution, 3),
        alpha=record.config.width_multiplier,
        weights=None,
        classes=record.config.num_classes,
        classifier_activation=None,
        **options,
    )
    written = {formats.SAVED_MODEL: os.path.join(directory, "saved_model")}
    model.export(written[formats.SAVED_MODEL], verbose=False)
    for name in names:
        if name in formats.LITERT:
            converter = tf.lite.TFLiteConverter.from_saved_model(written[formats.SAVED_MODEL])
            _quantize(converter, name, record)
            written[name] = os.path.join(directory, f"{name}.tflite")
            with open(written[name], "wb") as file:
                file.write(converter.convert())
    return {name: written[name] for name in names if name in written}


def _quantize(converter, name: str, record: ModelRecord) -> None:
    import numpy as np
    import tensorflow as tf

    if name == formats.LITERT_FLOAT32:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == formats.LITERT_FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    elif name == formats.LITERT_INT8:
        chance = np.random.default_rng(0)
        shape = (1, *record.config.resolution, 3)
        converter.representative_dataset = lambda: (
            [chance.uniform(*record.input_range, shape).astype(np.float32)] for _ in range(8)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
