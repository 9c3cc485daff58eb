"""What each format is held to: flags, with defaults that were measured.

Formats that compute what the model computes are held to a difference of probabilities and to one of
logits, in parts of what the model's own logits differ by between photos: with flat probabilities
the first says nothing. Where weights or activations are rounded to 8 bits a sure answer may lose
ten points of probability and stay right: these formats are held to the answers themselves, and
their logits must rise and fall from photo to photo as the model's do.

docs/parity.md sets the defaults beside what real checkpoints gave.
"""

from __future__ import annotations

import dataclasses

from common.command import flag
from common.errors import UsageError
from pipeline.formats import CHECKPOINT

# Converters fold and reorder sums, which rounds more often than each weight once.
NOISE_FACTOR = 4.0
# A model that moves further than that by itself cannot be compared at all.
LARGEST_RAISED_LIMIT = 1e-2
LARGEST_RAISED_LOGIT_LIMIT = 0.5
_SMALLEST = ("agreement", "correlation")


@dataclasses.dataclass(frozen=True)
class Limit:
    """What an artifact must keep; None is not asked.

    Attributes:
        difference: largest difference of a probability from the model's.
        logit_difference: largest difference of a logit, in parts of the spread of the model's.
        agreement: smallest part of the images with the same top-1 class.
        accuracy_drop: how much lower top-1 accuracy on the images may be.
        correlation: smallest correlation over the images of the logits with the model's.
        flags: the flags that say so, as they would be given.
    """

    difference: float | None = None
    logit_difference: float | None = None
    agreement: float | None = None
    accuracy_drop: float | None = None
    correlation: float | None = None
    flags: str = ""


_LOGITS = "largest difference of a logit, in parts of the spread of the model's over the photos"
_CORRELATION = "smallest correlation of the logits with the model's, over the photos"


@dataclasses.dataclass(frozen=True)
class ParityFlags:
    """How closely exported artifacts must agree with the model."""

    num_parity_images: int = flag(
        64, help="photos that outputs are compared on, from all over the split"
    )
    max_difference_checkpoint: float = flag(
        1e-6, help="largest difference of a probability: restored checkpoint"
    )
    max_difference_saved_model: float = flag(
        2e-5, help="largest difference of a probability: both signatures of the SavedModel"
    )
    max_difference_keras: float = flag(
        2e-5, help="largest difference of a probability: the .keras file"
    )
    max_difference_onnx: float = flag(1e-4, help="largest difference of a probability: ONNX")
    max_difference_litert_float32: float = flag(
        1e-4, help="largest difference of a probability: LiteRT, float32"
    )
    max_logit_difference_checkpoint: float = flag(1e-5, help=f"{_LOGITS}: restored checkpoint")
    max_logit_difference_saved_model: float = flag(1e-3, help=f"{_LOGITS}: the SavedModel")
    max_logit_difference_keras: float = flag(1e-3, help=f"{_LOGITS}: the .keras file")
    max_logit_difference_onnx: float = flag(1e-3, help=f"{_LOGITS}: ONNX")
    max_logit_difference_litert_float32: float = flag(1e-3, help=f"{_LOGITS}: LiteRT, float32")
    max_difference_litert_float16: float = flag(
        2e-2, help="largest difference of a probability: LiteRT, float16 weights"
    )
    min_agreement_litert_float16: float = flag(
        0.9, help="smallest part of the photos with the same top-1 class: LiteRT, float16 weights"
    )
    max_accuracy_drop_litert_float16: float = flag(
        0.05, help="largest loss of top-1 accuracy on the photos: LiteRT, float16 weights"
    )
    min_correlation_litert_float16: float = flag(
        0.99, help=f"{_CORRELATION}: LiteRT, float16 weights"
    )
    min_agreement_litert_dynamic: float = flag(
        0.75, help="smallest part of the photos with the same top-1 class: LiteRT, dynamic range"
    )
    max_accuracy_drop_litert_dynamic: float = flag(
        0.05, help="largest loss of top-1 accuracy on the photos: LiteRT, dynamic range"
    )
    min_correlation_litert_dynamic: float = flag(
        0.92, help=f"{_CORRELATION}: LiteRT, dynamic range"
    )
    min_agreement_litert_int8: float = flag(
        0.7, help="smallest part of the photos with the same top-1 class: LiteRT, int8"
    )
    max_accuracy_drop_litert_int8: float = flag(
        0.05, help="largest loss of top-1 accuracy on the photos: LiteRT, int8"
    )
    min_correlation_litert_int8: float = flag(0.85, help=f"{_CORRELATION}: LiteRT, int8")

    def __post_init__(self):
        if self.num_parity_images < 1:
            raise UsageError(f"--num_parity_images must be at least 1: {self.num_parity_images}")
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise UsageError(f"--{field.name} must be between 0 and 1: {value}")

    def limit(self, format_name: str, noise: float = 0.0, logit_noise: float = 0.0) -> Limit:
        """What a format is held to.

        Args:
            format_name: one of `pipeline.formats`.
            noise: largest change of the model's own probabilities when its weights and its input
                are rounded otherwise. A model with huge logits, one that has diverged for example,
                cannot be met more closely than it meets itself: the limit is raised to a multiple
                of that.
            logit_noise: the same of its logits, in parts of their spread.
        """
        values = {
            field.name: (name, getattr(self, name))
            for field in dataclasses.fields(Limit)
            if hasattr(self, name := _flag_name(field.name, format_name))
        }
        if not values:
            raise ValueError(f"no limit for {format_name!r}")
        words = [f"--{name}={value:g}" for name, value in values.values()]
        limits = {part: value for part, (_, value) in values.items()}
        # A restored checkpoint is computed by the same kernels, to the same bits.
        if format_name != CHECKPOINT:
            for part, by_itself, largest in (
                ("difference", noise, LARGEST_RAISED_LIMIT),
                ("logit_difference", logit_noise, LARGEST_RAISED_LOGIT_LIMIT),
            ):
                raised = min(NOISE_FACTOR * by_itself, largest)
                if part in limits and raised > limits[part]:
                    limits[part] = raised
                    words[list(limits).index(part)] += (
                        f" raised to {raised:.1g}, as the model's own rounding noise is"
                        f" {by_itself:.1g}"
                    )
        return Limit(flags=", ".join(words), **limits)


def _flag_name(part: str, format_name: str) -> str:
    return f"{'min' if part in _SMALLEST else 'max'}_{part}_{format_name}"
