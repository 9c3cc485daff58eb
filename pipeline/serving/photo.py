"""What somebody uploads, as a JPEG that the model takes, or a reason why not."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

# Other decoders of Pillow start programs or are seldom looked after.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 64_000_000  # a few hundred megabytes when decoded
_ORIENTATION = 0x0112  # of EXIF
_UPRIGHT = (None, 1)
_QUALITY = 95


class BadPhotoError(ValueError):
    """An upload that cannot be classified; the message is for whoever sent it."""


def to_jpeg(content: bytes) -> bytes:
    """A JPEG of an uploaded picture: the very bytes, where they are an upright JPEG in colours.

    Other formats are encoded anew, transparent parts white; of a picture that moves, the first is
    taken. Photos that a camera stored lying on their side are turned as people see them.

    Raises:
        BadPhotoError: it is no picture of these formats, damaged, or too large.
    """
    if not content:
        raise BadPhotoError("nothing was sent: send the bytes of a photo")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are looked at below
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        _require_size(image.size)
        image.load()
        is_plain = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
        if is_plain and image.getexif().get(_ORIENTATION) in _UPRIGHT:
            return content
        return _encode(ImageOps.exif_transpose(image))
    except BadPhotoError:
        raise
    except Image.DecompressionBombError:
        raise BadPhotoError(_too_large()) from None
    except Exception:  # damaged files make Pillow's decoders stumble in many ways
        raise BadPhotoError(
            "this is no picture that can be read: send a whole JPEG, PNG, WebP, GIF or BMP file"
        ) from None


def _require_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise BadPhotoError(_too_large())


def _too_large() -> str:
    return f"the picture has more than {MOST_PIXELS / 1e6:.0f} megapixels: send a smaller one"


def _encode(image: Image.Image) -> bytes:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()
