"""Looks at one image's bytes: what it is, how large, and whether it can be in a data set.

Every JPEG that decoders read as RGB or grey is kept byte for byte. Other images (PNG, GIF, BMP,
WebP, and JPEGs in CMYK, in a rare coding or with an odd header) are repaired: encoded anew as RGB
JPEG of quality 100. What cannot be decoded is rejected, with one reason of `REJECTION_REASONS`.

Images can be made smaller on the way (`ImagePolicy.shorter_side`). Those are decoded, resized and
encoded once, with what a repair would do done as well.

Damage inside the compressed data takes a full decode to find. It goes unnoticed unless the policy
asks for it (`DECODE`) or the image is decoded anyway to be made smaller.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from preprocessing.images import decoders, reencode
from preprocessing.images.jpeg_header import (
    COMMON_FRAMES,
    END_OF_IMAGE,
    START_OF_IMAGE,
    JpegHeader,
    read_jpeg_header,
)
from preprocessing.images.rejection import (
    DAMAGED,
    EMPTY,
    NO_PIXELS,
    NOT_AN_IMAGE,
    TOO_MANY_PIXELS,
    TRUNCATED,
    UNREADABLE,
    Rejection,
    check_size,
)

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000

VERBATIM, REPAIRED, RESIZED, REJECTED = "verbatim", "repaired", "resized", "rejected"
HEADER, DECODE = "header", "decode"

REJECTION_REASONS = (
    EMPTY,
    NOT_AN_IMAGE,
    TRUNCATED,
    DAMAGED,
    NO_PIXELS,
    TOO_MANY_PIXELS,
    UNREADABLE,
)

_COMMON_COMPONENTS = (1, 3)
_REPAIR_QUALITY = 100


@dataclasses.dataclass(frozen=True)
class ImagePolicy:
    """What is asked of images, and what is done to them.

    Attributes:
        max_pixels: images with more are rejected before they are decoded.
        validate: `HEADER`, or `DECODE` to read all compressed data, strictly.
        shorter_side: larger images are made this small; 0 keeps all sizes.
        jpeg_quality: of images that are made smaller, 1 to 100.
    """

    max_pixels: int = MAX_PIXELS
    validate: str = HEADER
    shorter_side: int = 0
    jpeg_quality: int = 95

    @classmethod
    def of_flags(cls, flags: Mapping[str, Any]) -> ImagePolicy:
        """Takes what is its own out of the flags of a plan."""
        return cls(**{field.name: flags[field.name] for field in dataclasses.fields(cls)})


DEFAULT_POLICY = ImagePolicy()


class Inspection(NamedTuple):
    """What came of looking at an image.

    Attributes:
        action: `VERBATIM`, `REPAIRED`, `RESIZED` or `REJECTED`.
        reason: why it was repaired or rejected, else "".
        detail: more on the reason, for the person who mends the file.
        content: the JPEG to store, the very object that was looked at if verbatim; b"" if rejected.
        width: pixels per row of the image to store; 0 when not known.
        height: its rows; 0 when not known.
    """

    action: str
    reason: str
    detail: str
    content: bytes
    width: int
    height: int


def inspect(content: bytes, policy: ImagePolicy = DEFAULT_POLICY) -> Inspection:
    """Decides what is done with the bytes of one file."""
    try:
        if content.startswith(START_OF_IMAGE):
            return _inspect_jpeg(content, policy)
        return _inspect_other(content, policy)
    except Rejection as rejection:
        return reject(rejection.reason, rejection.detail, rejection.width, rejection.height)


def reject(reason: str, detail: str, width: int = 0, height: int = 0) -> Inspection:
    return Inspection(REJECTED, reason, detail, b"", width, height)


def decode_error(jpeg: bytes) -> str | None:
    """Why a stored JPEG cannot be decoded in full; None if it can."""
    try:
        decoders.decode(jpeg, decoders.JPEG, max_pixels=2**63)
    except Rejection as rejection:
        return rejection.detail
    return None


def encoder_versions(policy: ImagePolicy = DEFAULT_POLICY) -> dict[str, str]:
    """Versions of what decides the bytes of images that are encoded, and which are refused."""
    from PIL import features

    turbo = features.version("libjpeg_turbo")
    versions = {
        "pillow": importlib.metadata.version("pillow"),
        "libjpeg": f"turbo {turbo}" if turbo else str(features.version("jpg")),
    }
    if policy.shorter_side or policy.validate == DECODE:
        versions["simplejpeg"] = importlib.metadata.version("simplejpeg")
    return versions


def _inspect_jpeg(content: bytes, policy: ImagePolicy) -> Inspection:
    header = read_jpeg_header(content)
    if header is None or header.scan_start is None:
        # Cut, or with bytes where a marker should be, over which some decoders skip.
        image = decoders.decode(content, decoders.JPEG, policy.max_pixels)
        return _repair(image, "odd JPEG header", policy)
    frame, precision, height, width, components, _ = header
    if not 0 < width * height <= policy.max_pixels:
        check_size(width, height, policy.max_pixels)
    if precision != 8 or frame not in COMMON_FRAMES or components not in _COMMON_COMPONENTS:
        return _repair_jpeg(content, header, policy)
    if policy.shorter_side and _is_larger(width, height, policy):
        image = reencode.decode_smaller(content, header, policy.shorter_side, policy.max_pixels)
        return _encode_resized(image, "", policy)
    if policy.validate != HEADER:
        decoders.check_compressed_data(content, header, policy.max_pixels)
    elif not content.endswith(END_OF_IMAGE):
        # Cut, or whole with other bytes behind, which decoders do not mind.
        decoders.decode(content, decoders.JPEG, policy.max_pixels)
    return Inspection(VERBATIM, "", "", content, width, height)


def _repair_jpeg(content: bytes, header: JpegHeader, policy: ImagePolicy) -> Inspection:
    if policy.validate != HEADER:
        decoders.check_compressed_data(content, header, policy.max_pixels)
    image = decoders.decode(content, decoders.JPEG, policy.max_pixels)
    is_rare = header.frame not in COMMON_FRAMES or header.components != 4
    return _repair(image, "rare JPEG coding" if is_rare else "CMYK JPEG", policy)


def _inspect_other(content: bytes, policy: ImagePolicy) -> Inspection:
    if not content:
        raise Rejection(EMPTY, "the file has no bytes")
    kind = _other_kind(content)
    if kind is None:
        raise Rejection(NOT_AN_IMAGE, "neither JPEG, PNG, GIF, BMP nor WebP")
    return _repair(decoders.decode(content, kind, policy.max_pixels), f"{kind} file", policy)


def _other_kind(content: bytes) -> str | None:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return decoders.PNG
    if content.startswith((b"GIF87a", b"GIF89a")):
        return decoders.GIF
    if content.startswith(b"BM"):
        return decoders.BMP
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return decoders.WEBP
    return None


def _is_larger(width: int, height: int, policy: ImagePolicy) -> bool:
    return 0 < policy.shorter_side < min(width, height)


def _repair(image: Image.Image, reason: str, policy: ImagePolicy) -> Inspection:
    rgb = reencode.to_rgb(image)
    if _is_larger(rgb.width, rgb.height, policy):
        return _encode_resized(reencode.make_smaller(rgb, policy.shorter_side), reason, policy)
    content = reencode.encode(rgb, _REPAIR_QUALITY)
    return Inspection(REPAIRED, reason, "", content, rgb.width, rgb.height)


def _encode_resized(image: Image.Image, reason: str, policy: ImagePolicy) -> Inspection:
    content = reencode.encode(image, policy.jpeg_quality)
    return Inspection(RESIZED, reason, "", content, image.width, image.height)
