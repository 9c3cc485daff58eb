"""The reference checkpoints: what they are of, and how to load them by the public loaders."""

import pathlib

import keras
import numpy as np

import loaders
from training.models import MobileNetConfig, make_config

# Directory below tf1_checkpoints: model, width, resolution.
REFERENCES = {
    "dq_mobilenet_edgetpu_0.75_224": ("mobilenet_edgetpu", 0.75, 224),
    "dq_mobilenet_v2_1.0_224": ("mobilenet_v2", 1.0, 224),
    "dq_mobilenet_v3_small_1.0_224": ("mobilenet_v3_small", 1.0, 224),
    "mobilenet_v1_0.25_128": ("mobilenet_v1", 0.25, 128),
    "mobilenet_v1_0.75_224": ("mobilenet_v1", 0.75, 224),
    "random_edgetpu_0.5_128": ("mobilenet_edgetpu", 0.5, 128),
    "random_v1_0.25_128": ("mobilenet_v1", 0.25, 128),
    "random_v1_0.25_128_quant": ("mobilenet_v1", 0.25, 128),
    "random_v2_0.35_96": ("mobilenet_v2", 0.35, 96),
    "random_v2_0.35_96_quant": ("mobilenet_v2", 0.35, 96),
    "random_v3_large_0.5_128": ("mobilenet_v3_large", 0.5, 128),
    "random_v3_large_minimalistic_0.35_96": ("mobilenet_v3_large_minimalistic", 0.35, 96),
    "random_v3_small_0.5_96_quant": ("mobilenet_v3_small", 0.5, 96),
    "random_v3_small_0.75_128": ("mobilenet_v3_small", 0.75, 128),
    "random_v3_small_minimalistic_0.5_96": ("mobilenet_v3_small_minimalistic", 0.5, 96),
}
QUANTIZED = [name for name in REFERENCES if name.endswith("_quant")]

# One checkpoint of each family, an 8-bit one among them.
ONE_OF_EACH = [
    "random_edgetpu_0.5_128",
    "random_v1_0.25_128",
    "random_v2_0.35_96_quant",
    "random_v3_large_0.5_128",
    "random_v3_large_minimalistic_0.35_96",
    "random_v3_small_0.75_128",
    "random_v3_small_minimalistic_0.5_96",
]


def directory_of(reference_data: pathlib.Path, name: str) -> pathlib.Path:
    return reference_data / "tf1_checkpoints" / name


def reference_of(reference_data: pathlib.Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of `reference.npz`."""
    with np.load(directory_of(reference_data, name) / "reference.npz") as arrays:
        return dict(arrays)


def num_outputs_of(reference: dict[str, np.ndarray]) -> int:
    return next(reference[key].shape[-1] for key in reference if key.startswith("logits_"))


def config_of(name: str, num_classes: int, **fields) -> MobileNetConfig:
    """The configuration of a reference checkpoint, giving logits."""
    model, width, size = REFERENCES[name]
    config = make_config(
        model, num_classes=num_classes, width_multiplier=width, input_shape=(size, size, 3)
    )
    return config.replace(classifier_activation=None, **fields)


def load_reference(path, config: MobileNetConfig, weights: str = "averages") -> keras.Model:
    """Loads by the public loader of the family."""
    name = config.name.removesuffix("_minimalistic")
    return getattr(loaders, f"load_{name}")(str(path), config, weights)
