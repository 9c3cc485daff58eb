"""Reads the header of a JPEG without decoding: what its frame is, and where its first scan starts.

This runs for each image of a data set, and takes a few microseconds.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

START_OF_IMAGE, END_OF_IMAGE = b"\xff\xd8\xff", b"\xff\xd9"

_FILL_BYTES, _START_OF_SCAN = 0xFFFF, 0xFFDA
# Tables, restart interval, application data and comments.
_PASSED_OVER = frozenset((0xFFC4, 0xFFCC, 0xFFDB, 0xFFDD, *range(0xFFE0, 0xFFF0), 0xFFFE))
# Frame markers are C0 to CF without the tables C4 and CC and the reserved C8.
_FRAMES = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}
# What decoders everywhere read, if it has 8 bits: baseline, extended and progressive Huffman.
COMMON_FRAMES = frozenset((0xC0, 0xC1, 0xC2))

_read_marker_and_length = struct.Struct(">HH").unpack_from
_read_frame = struct.Struct(">xBxxBHHB").unpack_from


class JpegHeader(NamedTuple):
    """What the frame header says, and where the first scan starts (None: not found)."""

    frame: int
    precision: int
    height: int
    width: int
    components: int
    scan_start: int | None


def read_jpeg_header(content: bytes) -> JpegHeader | None:
    """Walks the markers of a JPEG up to its first scan; None without a frame header.

    It gives up (no scan is found) at any byte where decoders would have to guess, so that they find
    the same frame as it does.
    """
    frame = None
    position = 2
    try:
        while True:
            marker, length = _read_marker_and_length(content, position)
            if marker in _PASSED_OVER:
                position += 2 + length
            elif marker == _START_OF_SCAN:
                return frame and JpegHeader(*frame, position)
            elif marker in _FRAMES:
                frame = _read_frame(content, position)
                position += 2 + length
            elif marker == _FILL_BYTES:
                position += 1
            else:
                break
    except struct.error:  # the file ends here
        pass
    return frame and JpegHeader(*frame, None)
