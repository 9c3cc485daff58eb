"""Bad and odd image files, each with what must become of it."""

import base64
import io
import struct
import zlib

import numpy as np
from PIL import Image

from .conftest import encoded

JPEG = encoded()
GREY = encoded(mode="L")
SCAN = JPEG.index(b"\xff\xda")
SPRITE = Image.open(io.BytesIO(encoded("PNG")))

# Made with `cjpeg`, since Pillow writes none: an arithmetic-coded ramp, grey and in colours, and a
# Huffman-coded plain in which the brightness has three samples for each of the colours.
ARITHMETIC_GREY = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNyws"
    "QFdBRkxOUlNSMj5aYVpQYEpRUk//yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wByyRrJtm+Lg6laDI0TfGrY"
    "oYD/2Q=="
)
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywt"
    "QFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT0//yQARCAAQABADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AHLJ"
    "Gsm2b4uDqVoMjRN8atihwP/Z"
)
THREE_TO_ONE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACAWGBwYFCAcGhwkIiAmMFA0MCwsMGJGSjpQdGZ6eHJmcG6AkLicgIiuim5w"
    "oNqirr7EztDOfJri8uDI8LjKzsb/2wBDASIkJDAqMF40NF7GhHCExsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbG"
    "xsbGxsbGxsbGxsbGxsbGxsbGxsb/wAARCAAQABADATEAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAH/xAAUEAEA"
    "AAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAAAAAAAAAAAAAAAAT/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIR"
    "AxEAPwCAlWgA/9k="
)


def saved(image: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def with_segment(marker: int, payload: bytes, jpeg: bytes = JPEG) -> bytes:
    segment = struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
    return jpeg[:2] + segment + jpeg[2:]


def with_frame(marker=0xC0, precision=8, height=32, width=48, jpeg: bytes = JPEG) -> bytes:
    """A JPEG whose frame header claims something else."""
    at = jpeg.index(b"\xff\xc0")
    frame = struct.pack(">BHH", precision, height, width)
    return jpeg[: at + 1] + bytes([marker]) + jpeg[at + 2 : at + 4] + frame + jpeg[at + 9 :]


def with_components(number: int) -> bytes:
    """A grey JPEG whose one component is declared `number` times."""
    at = GREY.index(b"\xff\xc0")
    declared = struct.pack(">H", 8 + 3 * number) + GREY[at + 4 : at + 9] + bytes([number])
    components = b"".join(bytes([index + 1, 0x11, 0]) for index in range(number))
    return GREY[: at + 2] + declared + components + GREY[at + 13 :]


def with_adobe_transform(transform: int, jpeg: bytes) -> bytes:
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + bytes([transform]) + jpeg[at + 1 :]


def with_zeros_in_scan(jpeg: bytes) -> bytes:
    middle = (jpeg.index(b"\xff\xda") + len(jpeg)) // 2
    return jpeg[:middle] + bytes(1000) + jpeg[middle + 1000 :]


def lossless() -> bytes:
    """16 x 16 grey pixels of 128: the first is as predicted, and so is each from its neighbour."""
    frame = struct.pack(">BHHB3B", 8, 16, 16, 1, 1, 0x11, 0)
    table = bytes([0, 1, *[0] * 15, 0])  # one code, '0', for 'no difference'
    scan = bytes([1, 1, 0, 1, 0, 0])
    segments = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
        for marker, payload in ((0xC3, frame), (0xC4, table), (0xDA, scan))
    )
    return b"\xff\xd8" + segments + bytes(16 * 16 // 8) + b"\xff\xd9"


def hide_behind_restart(jpeg: bytes) -> bytes:
    """To a decoder that gives a restart marker a length, a plain JPEG; to others the given one."""
    start, length = jpeg[:2] + b"\xff\xd0", int.from_bytes(jpeg[2:4], "big")
    return start + jpeg[2:] + bytes(2 + length - len(jpeg)) + JPEG[2:]


def png(width: int, height: int, depth: int = 8, colours: int = 2, rows: bytes = b"") -> bytes:
    """A PNG of raw rows; without rows, one that only claims its size."""
    chunks = (
        (b"IHDR", struct.pack(">II5B", width, height, depth, colours, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


_palette = SPRITE.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
_deep_ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48)
_cmyk = encoded(mode="CMYK")
_busy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
_gif = saved(_palette, "GIF")
_webp = encoded("WEBP", lossless=True)

# Kept byte for byte, however closely they are looked at.
VERBATIM = {
    "plain.JPEG": JPEG,
    "plain.jpg named.png": JPEG,
    "grey": GREY,
    "progressive": encoded(progressive=True),
    "progressive grey": encoded(mode="L", progressive=True),
    "extended sequential": with_frame(0xC1),
    "one pixel": encoded(size=(1, 1)),
    "one row": encoded(size=(200, 1)),
    "one column": encoded(size=(1, 200)),
    "not of whole blocks": encoded(size=(47, 31)),
    "444": encoded(subsampling=0),
    "422": encoded(subsampling=1),
    "sampling 3 to 1": THREE_TO_ONE,
    "restart markers": encoded(restart_marker_blocks=1),
    "optimised tables": encoded(optimize=True),
    "rgb marked by adobe": encoded(keep_rgb=True),
    "comment": with_segment(0xFE, b"\xff\xd9 is not the end"),
    "longest comment": with_segment(0xFE, b"c" * 65_533),
    "empty comment": with_segment(0xFE, b""),
    "colour profile": with_segment(0xE2, b"ICC_PROFILE\0\1\1" + b"p" * 3000),
    "many segments": with_segment(0xEC, b"Ducky", with_segment(0xED, b"Photoshop 3.0\0")),
    "rotated": encoded(exif=_exif(6)),
    "mirrored": encoded(exif=_exif(2)),
    "rubbish in exif": with_segment(0xE1, b"Exif\0\0MM\0*" + b"\xff" * 50),
    "thumbnail": with_segment(0xE1, b"Exif\0\0" + encoded(size=(8, 8))),
    "fill bytes": JPEG[:2] + b"\xff" * 7 + JPEG[2:],
    "no jfif": JPEG[:2] + JPEG[20:],
    "zeros behind the end": JPEG + b"\0" * 700,
    "rubbish behind the end": JPEG + b"rubbish behind the end",
    "newline behind the end": JPEG + b"\r\n",
    "two joined": JPEG + GREY,
    "png behind the end": JPEG + encoded("PNG"),
    "cut image behind the end": JPEG + JPEG[:400],
    # Names that a file system allows.
    "n01440764_1.PNG": JPEG,
    "Föhn 図 🦊.JPEG": encoded(seed=1),
    "quo\"te'd \\ and $(touch x) `y`.JPEG": encoded(seed=2),
    "line\nbreak\ttab\r.JPEG": encoded(seed=3),
    b"no \xff\xfe unicode.JPEG".decode("utf-8", "surrogateescape"): encoded(seed=4),
    "long " + "n" * 245 + ".JPEG": encoded(seed=5),
    "*?[a-z]{1,2}%20#%s.JPEG": encoded(seed=6),
    "-rf --flag=x": encoded(seed=7),
    " blanks around ": encoded(seed=8),
    "comma, tab and = sign.JPEG": encoded(seed=9),
}

# Encoded anew, for this reason.
REPAIRED = {
    "png.JPEG": (encoded("PNG"), "PNG file"),
    "png grey": (encoded("PNG", mode="L"), "PNG file"),
    "png grey alpha": (encoded("PNG", mode="LA"), "PNG file"),
    "png alpha": (encoded("PNG", mode="RGBA"), "PNG file"),
    "png black and white": (encoded("PNG", mode="1"), "PNG file"),
    "png palette": (saved(_palette, "PNG"), "PNG file"),
    "png palette with transparency": (
        saved(_palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "PNG file",
    ),
    "png one transparent colour": (saved(SPRITE, "PNG", transparency=(1, 2, 3)), "PNG file"),
    "png grey of 16 bits": (
        saved(Image.fromarray(_deep_ramp.astype(np.uint16)), "PNG"),
        "PNG file",
    ),
    "png rgb of 16 bits": (png(4, 2, 16, rows=(b"\0" + bytes(range(24))) * 2), "PNG file"),
    "png animated": (saved(SPRITE, "PNG", save_all=True, append_images=[_palette]), "PNG file"),
    "png with rubbish behind": (encoded("PNG") + b"rubbish", "PNG file"),
    "png one pixel": (encoded("PNG", size=(1, 1)), "PNG file"),
    "gif": (_gif, "GIF file"),
    "gif 87": (b"GIF87a" + _gif[6:], "GIF file"),
    "gif transparent": (saved(_palette, "GIF", transparency=3), "GIF file"),
    "gif animated": (saved(_palette, "GIF", save_all=True, append_images=[SPRITE]), "GIF file"),
    "bmp": (encoded("BMP"), "BMP file"),
    "bmp palette": (saved(_palette, "BMP"), "BMP file"),
    "bmp black and white": (encoded("BMP", mode="1"), "BMP file"),
    "webp": (_webp, "WebP file"),
    "webp lossy": (encoded("WEBP"), "WebP file"),
    "webp alpha": (encoded("WEBP", mode="RGBA", lossless=True), "WebP file"),
    "webp animated": (saved(SPRITE, "WEBP", save_all=True, append_images=[_palette]), "WebP file"),
    "cmyk.JPEG": (_cmyk, "CMYK JPEG"),
    "cmyk progressive": (encoded(mode="CMYK", progressive=True), "CMYK JPEG"),
    "ycck": (with_adobe_transform(2, _cmyk), "CMYK JPEG"),
    "cmyk with rubbish behind": (_cmyk + b"rubbish", "CMYK JPEG"),
    "arithmetic": (ARITHMETIC, "rare JPEG coding"),
    "arithmetic grey": (ARITHMETIC_GREY, "rare JPEG coding"),
    "lossless": (lossless(), "rare JPEG coding"),
    "bytes between segments": (JPEG[:20] + b"abc" + JPEG[20:], "odd JPEG header"),
    "restart marker in front": (JPEG[:2] + b"\xff\xd0" + JPEG[2:], "odd JPEG header"),
    "lossless behind a restart marker": (hide_behind_restart(lossless()), "odd JPEG header"),
}

# Rejected, for this reason.
REJECTED = {
    "empty.JPEG": (b"", "empty"),
    "text.JPEG": (b"no image, just text\n" * 20, "not an image"),
    "page.JPEG": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not an image"),
    "json": (b'{"error": "quota exceeded"}', "not an image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
    "zeros.JPEG": (b"\0" * 5000, "not an image"),
    "one byte": (b"\xff", "not an image"),
    "newline": (b"\n", "not an image"),
    "tiff.JPEG": (encoded("TIFF"), "not an image"),
    "tiff big-endian": (b"MM\0*" + b"\0" * 100, "not an image"),
    "icon": (encoded("ICO"), "not an image"),
    "jpeg 2000": (encoded("JPEG2000"), "not an image"),
    "heif": (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1", "not an image"),
    "pdf": (b"%PDF-1.4\n" + JPEG, "not an image"),
    "compressed jpeg": (zlib.compress(JPEG), "not an image"),
    "base64 of a jpeg": (base64.b64encode(JPEG), "not an image"),
    "byte before the start": (b"\n" + JPEG, "not an image"),
    "byte missing at the start": (JPEG[1:], "not an image"),
    "rubbish behind the start": (JPEG[:2] + b"abc" + JPEG[2:], "not an image"),
    "png with line ends of text": (encoded("PNG").replace(b"\r\n", b"\n"), "not an image"),
    "riff of sound": (b"RIFF\x24\0\0\0WAVEfmt ", "not an image"),
    "start only": (JPEG[:3], "truncated"),
    "start and end only": (b"\xff\xd8\xff\xd9", "truncated"),
    "cut in the first segment": (JPEG[:12], "truncated"),
    "cut in the tables": (JPEG[:40], "truncated"),
    "cut in the frame header": (JPEG[: JPEG.index(b"\xff\xc0") + 6], "truncated"),
    "cut before the scan": (JPEG[:SCAN], "truncated"),
    "end instead of the scan": (JPEG[:SCAN] + b"\xff\xd9", "truncated"),
    "cut in the scan header": (JPEG[: SCAN + 5], "truncated"),
    "cut at the start of the data": (JPEG[: SCAN + 14], "truncated"),
    "cut in the middle": (JPEG[: (SCAN + len(JPEG)) // 2], "truncated"),
    "cut in the end marker": (JPEG[:-1], "truncated"),
    "no end marker": (JPEG[:-2], "truncated"),
    "cut, with zeros behind": (JPEG[: SCAN + 60] + b"\0" * 2, "truncated"),
    "cut behind the thumbnail": (
        with_segment(0xE1, b"Exif\0\0" + encoded(size=(8, 8)))[:-2],
        "truncated",
    ),
    "cut at the end of the thumbnail": (
        JPEG[:2] + b"\xff\xe1\xff\xf0Exif\0\0" + encoded(size=(8, 8)),
        "truncated",
    ),
    "progressive cut": (encoded(progressive=True)[:-150], "truncated"),
    "grey cut": (GREY[:-40], "truncated"),
    "cmyk cut": (_cmyk[:-300], "truncated"),
    "png cut": (encoded("PNG")[:-100], "truncated"),
    "png cut in the header": (encoded("PNG")[:20], "truncated"),
    "gif cut": (_gif[:-200], "truncated"),
    "bmp cut": (encoded("BMP")[:-100], "truncated"),
    "webp cut": (_webp[:-40], "damaged"),
    "start of start": (b"\xff\xd8" + JPEG, "truncated"),
    "png damaged": (encoded("PNG")[:20] + b"\xff" * 500, "damaged"),
    "png of rubbish": (png(48, 32, rows=b"")[:33] + b"\xff" * 200, "damaged"),
    "png of an unknown depth": (png(48, 32, depth=3), "damaged"),
    "gif without frames": (_gif[:13] + b";", "damaged"),
    "bmp of rubbish": (b"BM" + b"\xff" * 100, "truncated"),
    "webp of rubbish": (b"RIFF\x24\0\0\0WEBPVP8 " + b"\xff" * 24, "damaged"),
    "12 bits": (with_frame(0xC1, precision=12), "damaged"),
    "12 bits progressive": (with_frame(0xC2, precision=12), "damaged"),
    "lossless in name": (with_frame(0xC3), "damaged"),
    "hierarchical": (with_frame(0xC5), "damaged"),
    "lossless arithmetic in name": (with_frame(0xCB), "damaged"),
    "two components": (with_components(2), "damaged"),
    "no components": (with_components(0), "damaged"),
    "no width": (with_frame(width=0), "no pixels"),
    "no height": (with_frame(height=0), "no pixels"),
    "png without pixels": (png(0, 0), "no pixels"),
    "png without width": (png(0, 10), "no pixels"),
    "bomb.JPEG": (with_frame(width=20_000, height=20_000), "too many pixels"),
    "largest jpeg": (with_frame(width=65_535, height=65_535), "too many pixels"),
    "bomb in cmyk": (with_frame(width=20_000, height=20_000, jpeg=_cmyk), "too many pixels"),
    "bomb.png": (png(20_000, 20_000), "too many pixels"),
    "largest png": (png(2**31 - 1, 2**31 - 1), "too many pixels"),
    "bomb.gif": (_gif[:6] + struct.pack("<HH", 60_000, 60_000) + _gif[10:], "too many pixels"),
    "bomb.bmp": (
        encoded("BMP")[:18] + struct.pack("<ii", 30_000, 30_000) + encoded("BMP")[26:],
        "too many pixels",
    ),
}

# Damage within the compressed data: kept if only headers are looked at, else rejected as damaged.
REJECTED_IF_DECODED = {
    "zeros in the middle": with_zeros_in_scan(saved(_busy, "JPEG")),
    "zeros in the middle of grey": with_zeros_in_scan(saved(_busy.convert("L"), "JPEG")),
    "zeros in the middle of progressive": with_zeros_in_scan(
        saved(_busy, "JPEG", progressive=True)
    ),
    "cut with an end marker": JPEG[: (SCAN + len(JPEG)) // 2] + b"\xff\xd9",
    "no data": JPEG[: SCAN + 14] + b"\xff\xd9",
}
