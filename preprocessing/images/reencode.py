"""Encodes images anew: those that are not plain JPEGs, and those that are to be smaller.

The same pixels give the same bytes: one encoder, and a resampling filter of whole-number arithmetic
whose weights are polynomials, so that they are the same on every machine.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from preprocessing.images.decoders import JPEG, decode, decode_strictly
from preprocessing.images.jpeg_header import JpegHeader
from preprocessing.images.rejection import TOO_MANY_PIXELS, Rejection

if TYPE_CHECKING:
    from PIL import Image

# A JPEG decoder can leave out the finest detail and be quicker. The picture it then gives keeps at
# least this many times the pixels a side that are wanted, so that the difference is not seen: .5
# grey levels on average over photos, and 2 where it kept no more than are wanted.
_SPARE = 3


def smaller_size(width: int, height: int, shorter_side: int) -> tuple[int, int]:
    """The size with this shorter side and the same aspect, to the nearest whole pixel."""
    shorter = min(width, height)
    return tuple((side * shorter_side + shorter // 2) // shorter for side in (width, height))


def make_smaller(image: Image.Image, shorter_side: int) -> Image.Image:
    """Resizes a grey or RGB image to this shorter side, antialiased."""
    return _resize(image, image.width, image.height, shorter_side, shrunk=1)


def decode_smaller(
    content: bytes, header: JpegHeader, shorter_side: int, max_pixels: int
) -> Image.Image:
    """Decodes a plain JPEG and resizes it to this shorter side, which must be the smaller one.

    Raises:
        Rejection: the compressed data is damaged or ends early.
    """
    from PIL import Image

    shrink = 8
    while shrink > 1 and min(header.width, header.height) < shrink * _SPARE * shorter_side:
        shrink //= 2
    pixels = decode_strictly(content, header, shrink)
    if pixels is None:
        return make_smaller(decode(content, JPEG, max_pixels), shorter_side)
    image = Image.fromarray(pixels[..., 0] if header.components == 1 else pixels)
    return _resize(image, header.width, header.height, shorter_side, shrink)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any decoded image as RGB; what is transparent shows the colour stored there."""
    if image.mode.startswith("I"):
        image = _to_8_bits(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the transparency that is dropped
        return image.convert("RGB")


def encode(image: Image.Image, quality: int) -> bytes:
    """A JPEG of a grey or RGB image.

    Raises:
        Rejection: it has more than 65,500 pixels to a side.
    """
    image.info = {}  # comments and colour profiles of the source do not fit the new file
    out = io.BytesIO()
    try:
        image.save(out, "JPEG", quality=quality)
    except (OSError, ValueError) as error:
        raise Rejection(TOO_MANY_PIXELS, str(error), *image.size) from error
    return out.getvalue()


def _resize(
    image: Image.Image, width: int, height: int, shorter_side: int, shrunk: int
) -> Image.Image:
    """Resizes an image that was `width` x `height` before it was divided by `shrunk`."""
    from PIL import Image

    # Not quite all of a divided image if its size had to be rounded up.
    box = (0, 0, width / shrunk, height / shrunk)
    size = smaller_size(width, height, shorter_side)
    return image.resize(size, Image.Resampling.BICUBIC, box)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """The upper half of 16-bit grey, which Pillow's own conversion would clip to white."""
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
