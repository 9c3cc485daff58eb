"""How a full-integer file is made: flags."""

from __future__ import annotations

import dataclasses

from common.command import flag
from common.errors import UsageError

FLOAT32, UINT8, INT8 = "float32", "uint8", "int8"


@dataclasses.dataclass(frozen=True)
class Int8Flags:
    """How the full-integer LiteRT file is calibrated, and how close it must stay."""

    num_calibration_images: int = flag(
        200,
        help="photos for litert_int8; every other one gives the ranges, the rest tell how far the"
        " file is from the model",
    )
    int8_min_agreement: float = flag(
        0.9,
        help="smallest part of those photos with the float model's top-1 class; below it the layers"
        " that drift are kept in float until it holds (0: keep none)",
    )
    int8_io: str = flag(
        FLOAT32, help="type of input and output of litert_int8", choices=(FLOAT32, UINT8)
    )
    int8_hard_swish: str = flag(
        FLOAT32,
        help="type of hard-swish in litert_int8; LiteRT's 8-bit hard-swish takes a CPU ten times"
        " as long as all the rest, int8 is for hardware that knows integers alone",
        choices=(FLOAT32, INT8),
    )

    def __post_init__(self):
        if self.num_calibration_images < 2:
            raise UsageError(
                f"--num_calibration_images must be at least 2: {self.num_calibration_images}"
            )
        if not 0.0 <= self.int8_min_agreement <= 1.0:
            raise UsageError(
                f"--int8_min_agreement must lie between 0 and 1: {self.int8_min_agreement:g}"
            )
