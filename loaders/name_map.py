"""TF1 names of the weights: a rule, and a table of its words.

A layer's name is its TF1 scope with '.' for '/', so that only the last word differs:

    Conv2d_1_depthwise.kernel          MobilenetV1/Conv2d_1_depthwise/depthwise_weights
    Conv2d_1_depthwise.BatchNorm.beta  MobilenetV1/Conv2d_1_depthwise/BatchNorm/beta
    Logits.Conv2d_1c_1x1.bias          MobilenetV1/Logits/Conv2d_1c_1x1/biases
"""

from __future__ import annotations

_WORDS = {"kernel": "weights", "bias": "biases"}
_DEPTHWISE_WORDS = {"kernel": "depthwise_weights"}

# Ranges of 8-bit checkpoints are named after ops, and V1's ops, not its variables, lie in a doubled
# scope.
_RANGE_ENDS = ("min", "max")
_DOUBLED = ("MobilenetV1",)

AVERAGE = "/ExponentialMovingAverage"


def tf1_name(scope: str, weight: str) -> str:
    """The TF1 variable of the weight 'LAYER.NAME' of a model under `scope`."""
    layer, word = weight.rsplit(".", 1)
    if word in _RANGE_ENDS and scope in _DOUBLED and not layer.startswith("Logits."):
        scope = f"{scope}/{scope}"
    words = _DEPTHWISE_WORDS if layer.endswith("depthwise") else _WORDS
    return f"{scope}/{layer.replace('.', '/')}/{words.get(word, word)}"


# TF1 names a slot after its optimizer, and numbers the second and the third.
_SLOTS = (
    *("RMSProp", "RMSProp_1", "RMSProp_2", "Momentum", "Adam", "Adam_1"),
    *("Adagrad", "Adadelta", "Adadelta_1", "Ftrl", "Ftrl_1"),
)
_RANGES = ("min", "max", "biased", "local_step")
_COUNTERS = ("global_step", "beta1_power", "beta2_power", "fake_quantization_step")


def reason_to_leave(name: str) -> str | None:
    """Why a variable that is no weight is in a checkpoint, or None if nothing explains it."""
    last = name.rsplit("/", 1)[-1]
    if last in _COUNTERS:
        return "counter of the trainer"
    if last in _SLOTS:
        return "slot of the optimizer"
    if last in _RANGES:
        return "quantisation range"
    if name.endswith(AVERAGE) and "loss" in name.removesuffix(AVERAGE):
        return "average of a loss"
    return None
