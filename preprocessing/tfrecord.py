"""TFRecord framing, without TensorFlow, so that workers need not load it.

A record is its length (8 bytes, little-endian), the masked CRC32C of these 8 bytes, the payload,
and the masked CRC32C of the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from google_crc32c import extend, value

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES

_pack_length, _pack_checksum = struct.Struct("<Q").pack, struct.Struct("<I").pack


def frame(parts: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Header and footer of a record whose payload is `parts` one after the other."""
    checksum = size = 0
    for part in parts:
        checksum = extend(checksum, part)
        size += len(part)
    length = _pack_length(size)
    return length + masked_crc(length), _masked(checksum)


def payload_of(record: bytes) -> bytes | None:
    """The payload of one framed record, or None when a length or a checksum is wrong."""
    payload = record[HEADER_BYTES:-FOOTER_BYTES]
    header, footer = frame([payload])
    whole = len(record) >= FRAME_BYTES and record.startswith(header) and record.endswith(footer)
    return payload if whole else None


def masked_crc(content: bytes) -> bytes:
    """The checksum of `content` as it stands in a record."""
    return _masked(value(content))


def _masked(checksum: int) -> bytes:
    return _pack_checksum(((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)
