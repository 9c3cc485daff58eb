"""Pixels out of the bytes of an image, or the reason why there are none.

Two libraries decode. simplejpeg is fast and strict: it refuses compressed data that other decoders
fill up with grey without a word. Pillow reads all formats and rare JPEG codings. Neither is
imported before an image needs it.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from preprocessing.images.jpeg_header import (
    COMMON_FRAMES,
    END_OF_IMAGE,
    JpegHeader,
    read_jpeg_header,
)
from preprocessing.images.rejection import DAMAGED, NO_PIXELS, TRUNCATED, Rejection, check_size

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

JPEG, PNG, GIF, BMP, WEBP = "JPEG", "PNG", "GIF", "BMP", "WebP"

# simplejpeg says one of these of whole files that it is not made for, and Pillow may read.
_NOT_MADE_FOR = ("Unsupported", "Could not determine subsampling")


def decode(content: bytes, kind: str, max_pixels: int) -> Image.Image:
    """Decodes an image of any kind with Pillow.

    Raises:
        Rejection: it cannot be decoded, or is too large.
    """
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    # `PIL.Image.open` would have a limit of its own on pixels, and would not say what is wrong.
    readers = {
        JPEG: JpegImagePlugin.JpegImageFile,
        PNG: PngImagePlugin.PngImageFile,
        GIF: GifImagePlugin.GifImageFile,
        BMP: BmpImagePlugin.BmpImageFile,
        WEBP: WebPImagePlugin.WebPImageFile,
    }
    if kind == PNG and bytes(4) in (content[16:20], content[20:24]):  # no PNG at all to Pillow
        raise Rejection(NO_PIXELS, "PNG without width or height")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd metadata, which is not kept
            image = readers[kind](io.BytesIO(content))
            check_size(*image.size, max_pixels)
            image.load()
    except (Rejection, MemoryError):  # lack of memory says nothing about the image
        raise
    except Exception as error:  # what Pillow raises for bad bytes is an open set
        reason = _reason(content, kind, str(error))
        raise Rejection(reason, f"{kind}: {error}") from error
    return image


def decode_strictly(content: bytes, header: JpegHeader, shrink: int) -> np.ndarray | None:
    """Decodes a JPEG to an array of grey or RGB, each side divided by `shrink` (1, 2, 4 or 8).

    Returns:
        The pixels, or None if the strict decoder is not made for this coding.

    Raises:
        Rejection: the compressed data is damaged or ends early.
    """
    colours = "GRAY" if header.components == 1 else "RGB"
    height, width = -(-header.height // shrink), -(-header.width // shrink)
    return _decode_strictly(content, header, colours, height, width)


def check_compressed_data(content: bytes, header: JpegHeader, max_pixels: int) -> None:
    """Reads all compressed data of a JPEG strictly, at an eighth of its size, which is quicker.

    Raises:
        Rejection: it is damaged or ends early.
    """
    if _decode_strictly(content, header, "GRAY", 1, 1) is None:
        decode(content, JPEG, max_pixels)


def _decode_strictly(
    content: bytes, header: JpegHeader, colours: str, height: int, width: int
) -> np.ndarray | None:
    import simplejpeg

    if header.frame not in COMMON_FRAMES:
        return None  # a lossless frame cannot be divided: it would be written past the end
    try:
        # It takes the smallest of its scales that gives these sides or more.
        return simplejpeg.decode_jpeg(content, colours, min_height=height, min_width=width)
    except ValueError as error:
        words = str(error).rpartition("(): ")[2]
        if words.startswith(_NOT_MADE_FOR):
            return None
        raise Rejection(_reason(content, JPEG, words), f"JPEG: {words}") from error


def _reason(content: bytes, kind: str, words: str) -> str:
    if kind != JPEG:
        return TRUNCATED if "truncated" in words.lower() else DAMAGED
    header = read_jpeg_header(content)
    scan = header and header.scan_start
    ends = scan is not None and content.find(END_OF_IMAGE, scan) >= 0
    return DAMAGED if ends else TRUNCATED
