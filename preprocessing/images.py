"""Looks at one image's bytes: what it is, how large, and whether it can be in a data set.

Every JPEG that decoders read as RGB or grey is kept byte for byte. Other images (PNG, GIF, BMP,
WebP, and JPEGs in CMYK or in a rare coding) are repaired: encoded anew as RGB JPEG of quality 100.
What cannot be decoded is rejected, with one reason of `REJECTION_REASONS`.

Damage inside the compressed data goes unnoticed here, since finding it takes a full decode of
every image; `preprocessing.verify --deep` does that.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import warnings

MAX_PIXELS = 100_000_000

VERBATIM, REPAIRED, REJECTED = "verbatim", "repaired", "rejected"

EMPTY = "empty"
NOT_AN_IMAGE = "not an image"
TRUNCATED = "truncated"
DAMAGED = "damaged"
NO_PIXELS = "no pixels"
TOO_MANY_PIXELS = "too many pixels"
UNREADABLE = "unreadable"
REJECTION_REASONS = (
    EMPTY,
    NOT_AN_IMAGE,
    TRUNCATED,
    DAMAGED,
    NO_PIXELS,
    TOO_MANY_PIXELS,
    UNREADABLE,
)

_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8\xff", b"\xff\xd9"
_START_OF_SCAN = 0xDA
# Frame markers are C0 to CF without the tables C4 and CC and the reserved C8. Decoders everywhere
# read baseline, extended and progressive Huffman frames.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_COMMON_FRAMES = frozenset((0xC0, 0xC1, 0xC2))


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What came of looking at an image.

    Attributes:
        action: `VERBATIM`, `REPAIRED` or `REJECTED`.
        reason: why it was repaired or rejected, else "".
        detail: more on the reason, for the person who mends the file.
        content: the JPEG to store; b"" when rejected.
        width: pixels per row; 0 when not known.
        height: rows; 0 when not known.
    """

    action: str
    reason: str = ""
    detail: str = ""
    content: bytes = dataclasses.field(default=b"", repr=False)
    width: int = 0
    height: int = 0


@dataclasses.dataclass(frozen=True)
class JpegHeader:
    """The frame header of a JPEG, and where its first scan starts (None: not found)."""

    frame: int
    precision: int
    width: int
    height: int
    components: int
    scan_start: int | None


def inspect(content: bytes, max_pixels: int = MAX_PIXELS) -> Inspection:
    """Decides what is done with the bytes of one file."""
    if not content:
        return reject(EMPTY, "the file has no bytes")
    if content.startswith(_START_OF_IMAGE):
        return _inspect_jpeg(content, max_pixels)
    kind = _other_kind(content)
    if kind is None:
        return reject(NOT_AN_IMAGE, "neither JPEG, PNG, GIF, BMP nor WebP")
    return _repair(content, kind, f"{kind} file", max_pixels)


def reject(reason: str, detail: str, width: int = 0, height: int = 0) -> Inspection:
    return Inspection(REJECTED, reason, detail, width=width, height=height)


def read_jpeg_header(content: bytes) -> JpegHeader | None:
    """Walks the markers of a JPEG up to its first scan; None without a frame header."""
    header = None
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _START_OF_SCAN:
            return header and dataclasses.replace(header, scan_start=position)
        if marker in _FRAMES and position + 10 <= len(content):
            header = JpegHeader(
                frame=marker,
                precision=content[position + 4],
                height=int.from_bytes(content[position + 5 : position + 7], "big"),
                width=int.from_bytes(content[position + 7 : position + 9], "big"),
                components=content[position + 9],
                scan_start=None,
            )
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return header


def decode_error(jpeg: bytes) -> str | None:
    """Why a stored JPEG cannot be decoded in full; None if it can."""
    decoded = _decode(jpeg, "JPEG", max_pixels=2**63)
    return decoded.detail if isinstance(decoded, Inspection) else None


def encoder_versions() -> dict[str, str]:
    """Versions of what encodes repaired images, since their bytes depend on it."""
    from PIL import features

    turbo = features.version("libjpeg_turbo")
    return {
        "pillow": importlib.metadata.version("pillow"),
        "libjpeg": f"turbo {turbo}" if turbo else str(features.version("jpg")),
    }


def _inspect_jpeg(content: bytes, max_pixels: int) -> Inspection:
    header = read_jpeg_header(content)
    if header is None or header.scan_start is None:
        return _keep_if_decodable(content, header, max_pixels)
    if not header.width or not header.height:
        return reject(NO_PIXELS, f"{header.width} x {header.height} pixels")
    if header.width * header.height > max_pixels:
        return _too_large(header.width, header.height, max_pixels)
    if header.frame not in _COMMON_FRAMES or header.precision != 8:
        return _repair(content, "JPEG", "rare JPEG coding", max_pixels)
    if header.components == 4:
        return _repair(content, "JPEG", "CMYK JPEG", max_pixels)
    if not content.endswith(_END_OF_IMAGE):
        # Cut, or whole with other bytes behind, which decoders do not mind.
        return _keep_if_decodable(content, header, max_pixels)
    return Inspection(VERBATIM, content=content, width=header.width, height=header.height)


def _keep_if_decodable(content: bytes, header: JpegHeader | None, max_pixels: int) -> Inspection:
    decoded = _decode(content, "JPEG", max_pixels)
    if isinstance(decoded, Inspection):
        return decoded
    if decoded.mode not in ("RGB", "L"):
        return _encode(decoded, f"{decoded.mode} JPEG")
    return Inspection(VERBATIM, content=content, width=decoded.width, height=decoded.height)


def _other_kind(content: bytes) -> str | None:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if content.startswith(b"BM"):
        return "BMP"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WebP"
    return None


def _repair(content: bytes, kind: str, reason: str, max_pixels: int) -> Inspection:
    decoded = _decode(content, kind, max_pixels)
    return decoded if isinstance(decoded, Inspection) else _encode(decoded, reason)


def _decode(content: bytes, kind: str, max_pixels: int):
    """The decoded `PIL.Image`, or the rejection of what cannot be decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # The limit here is `max_pixels`; Pillow's own, at half its hard limit, only warns.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=[kind.upper()])
        if image.width * image.height > max_pixels:
            return _too_large(image.width, image.height, max_pixels)
        image.load()
    except Image.DecompressionBombError as error:
        return reject(TOO_MANY_PIXELS, str(error))
    except Exception as error:  # what Pillow raises for bad bytes is an open set
        return reject(_decode_failure(content, kind, error), f"{kind}: {error}")
    return image


def _decode_failure(content: bytes, kind: str, error: Exception) -> str:
    if kind == "JPEG":
        header = read_jpeg_header(content)
        scan = header and header.scan_start
        ends = scan is not None and content.find(_END_OF_IMAGE, scan) >= 0
        return DAMAGED if ends else TRUNCATED
    return TRUNCATED if "truncated" in str(error).lower() else DAMAGED


def _encode(image, reason: str) -> Inspection:
    if image.mode.startswith("I"):
        image = _to_8_bits(image)
    rgb = image.convert("RGB")
    rgb.info = {}  # comments and colour profiles of the source do not fit the new file
    out = io.BytesIO()
    try:
        rgb.save(out, "JPEG", quality=100)
    except (OSError, ValueError) as error:  # more than 65,500 pixels to a side
        return reject(TOO_MANY_PIXELS, str(error), *image.size)
    return Inspection(REPAIRED, reason, "", out.getvalue(), image.width, image.height)


def _to_8_bits(image):
    """The upper half of 16-bit grey, which Pillow's own conversion would clip to white."""
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _too_large(width: int, height: int, max_pixels: int) -> Inspection:
    detail = f"{width} x {height} pixels, the limit is {max_pixels}"
    return reject(TOO_MANY_PIXELS, detail, width, height)
