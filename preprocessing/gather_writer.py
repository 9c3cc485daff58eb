"""Writes many small and large parts with few system calls, without copying them together first."""

from __future__ import annotations

import os
from typing import BinaryIO

_BYTES_AT_ONCE = 1 << 20
_PARTS_AT_ONCE = 1000  # the system takes 1024


class GatherWriter:
    """Collects parts for an unbuffered file; `flush` must come last."""

    def __init__(self, file: BinaryIO):
        self._file = file.fileno()
        self._parts: list[bytes] = []
        self._num_bytes = 0

    def add(self, *parts: bytes) -> None:
        self._parts += parts
        self._num_bytes += sum(map(len, parts))
        if self._num_bytes >= _BYTES_AT_ONCE or len(self._parts) >= _PARTS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        written = os.writev(self._file, self._parts) if self._parts else 0
        if written < self._num_bytes:
            # A disk that is nearly full takes a part of it without an error; the next call raises.
            rest = memoryview(b"".join(self._parts))[written:]
            while rest:
                rest = rest[os.write(self._file, rest) :]
        self._parts, self._num_bytes = [], 0
