"""Parts of a split, as TFDS writes them: `train[:98%]`, `train[98%:]`, `train[100:200]`."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction

from common.errors import UsageError

_SPLIT = re.compile(r"(?P<split>[\w-]+)(\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?")
_PLACE = re.compile(r"-?(\d+|\d+(\.\d+)?%)")


@dataclasses.dataclass(frozen=True)
class Part:
    """Consecutive examples of a split.

    Attributes:
        text: as the user wrote it.
        split: name of the split.
        start: place of the first example: a number, or one with '%'; negative from the end, ""
            for the beginning.
        stop: place after the last one, likewise; "" for the end.
    """

    text: str
    split: str
    start: str = ""
    stop: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.start and not self.stop

    def range_of(self, num_examples: int) -> tuple[int, int]:
        """First example, and the one after the last, of a split of so many.

        Raises:
            UsageError: it reaches beyond the split, or holds nothing.
        """
        start = self._place(self.start, num_examples) if self.start else 0
        stop = self._place(self.stop, num_examples) if self.stop else num_examples
        if start >= stop:
            raise UsageError(
                f"split {self.text!r} holds no examples: {self.split} has {num_examples:,}, and"
                f" this asks for those from {start:,} to before {stop:,}"
            )
        return start, stop

    def _place(self, text: str, num_examples: int) -> int:
        if text.endswith("%"):
            # The same place ends one part and begins the other, so that none is lost between.
            place = math.floor(Fraction(text[:-1]) * num_examples / 100 + Fraction(1, 2))
        else:
            place = int(text)
        from_start = place + num_examples if text.startswith("-") else place
        if not 0 <= from_start <= num_examples:
            raise UsageError(
                f"split {self.text!r} reaches beyond the {num_examples:,} examples of {self.split}"
            )
        return from_start


def parse_split(text: str) -> Part:
    """Reads the name of a split, or of a part of one.

    Raises:
        UsageError: it is neither.
    """
    found = _SPLIT.fullmatch(text)
    start, stop = (found["start"] or "", found["stop"] or "") if found else ("", "")
    if not found or any(place and not _PLACE.fullmatch(place) for place in (start, stop)):
        raise UsageError(
            f"{text!r} is no split: write its name, or a part of it as in train[:98%], train[98%:]"
            " or train[100:200]"
        )
    return Part(text, found["split"], start, stop)
