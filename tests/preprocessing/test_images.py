import io
import struct

import numpy as np
import pytest
from PIL import Image

from preprocessing import images
from preprocessing.images import inspect, read_jpeg_header

from .conftest import encoded

JPEG = encoded()


def with_thumbnail(jpeg: bytes) -> bytes:
    """A JPEG whose EXIF-like segment holds another whole JPEG, end marker and all."""
    thumbnail = b"Exif\0\0" + encoded(size=(8, 8))
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]


def with_size(width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    position = JPEG.index(b"\xff\xc0")
    return JPEG[: position + 5] + struct.pack(">HH", height, width) + JPEG[position + 9 :]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"no image, just text\n" * 20, "not an image"),
        (b"\x00" * 5000, "not an image"),
        (b"II*\x00" + b"\0" * 100, "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:-2], "truncated"),
        (JPEG[:-1], "truncated"),
        (JPEG[:3], "truncated"),
        (JPEG[:40], "truncated"),
        (with_thumbnail(JPEG)[:-2], "truncated"),
        (JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9", "truncated"),
        (encoded(mode="CMYK")[:-300], "truncated"),
        (encoded("PNG")[:-100], "truncated"),
        (encoded("PNG")[:20] + b"\xff" * 500, "damaged"),
        (with_size(0, 32), "no pixels"),
        (with_size(48, 0), "no pixels"),
        (with_size(20_000, 20_000), "too many pixels"),
    ],
)
def test_bad_bytes_are_rejected_with_a_reason_of_the_vocabulary(content, reason):
    found = inspect(content)
    assert (found.action, found.reason) == ("rejected", reason), found
    assert found.detail and not found.content
    assert reason in images.REJECTION_REASONS


@pytest.mark.parametrize(
    "content",
    [
        JPEG,
        encoded(mode="L"),
        encoded(progressive=True),
        encoded(subsampling=0),
        JPEG + b"\0" * 700,
        JPEG + b"rubbish behind the end",
        JPEG + JPEG,
        with_thumbnail(JPEG),
        encoded(comment=b"\xff\xd9 is not the end"),
    ],
    ids=["plain", "grey", "progressive", "444", "zeros", "rubbish", "two", "thumbnail", "comment"],
)
def test_jpegs_that_decoders_read_are_kept_byte_for_byte(content):
    found = inspect(content)
    assert (found.action, found.reason) == ("verbatim", "")
    assert found.content == content
    assert (found.width, found.height) == (48, 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded("PNG"), "PNG file"),
        (encoded("PNG", mode="RGBA"), "PNG file"),
        (encoded("PNG", mode="P"), "PNG file"),
        (encoded("GIF"), "GIF file"),
        (encoded("BMP"), "BMP file"),
        (encoded("WEBP", lossless=True), "WebP file"),
        (encoded(mode="CMYK"), "CMYK JPEG"),
    ],
)
def test_other_images_become_rgb_jpegs_that_look_the_same(content, reason):
    found = inspect(content)
    assert (found.action, found.reason) == ("repaired", reason)
    assert (found.width, found.height) == (48, 32)
    header = read_jpeg_header(found.content)
    assert (header.width, header.height, header.components) == (48, 32, 3)
    # Brightness alone, since colours of palettes are dithered and JPEG halves their resolution.
    new, old = (
        np.asarray(Image.open(io.BytesIO(image)).convert("RGB").convert("L"), float)
        for image in (found.content, content)
    )
    assert np.abs(new - old).mean() < 2
    assert inspect(content).content == found.content


def test_16_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "PNG")
    stored = np.asarray(Image.open(io.BytesIO(inspect(out.getvalue()).content)))
    assert np.abs(stored[..., 0].astype(float) - ramp / 257).max() < 4


def test_the_pixel_limit_is_the_callers_and_holds_for_every_format():
    for format in ("JPEG", "PNG", "GIF"):
        content = encoded(format)
        assert inspect(content, max_pixels=48 * 32).action != "rejected"
        assert inspect(content, max_pixels=48 * 32 - 1).reason == "too many pixels"


def test_a_small_file_that_claims_a_huge_picture_is_not_decoded():
    header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + header + b"\0" * 200
    assert inspect(bomb).reason in ("too many pixels", "damaged")


def test_sizes_of_real_photos_are_pillows(reference_data):
    paths = sorted((reference_data / "imagenet_sample").glob("*/*"))
    assert len(paths) == 500
    for path in paths:
        content = path.read_bytes()
        found = inspect(content)
        with Image.open(path) as image:
            assert (found.width, found.height) == image.size
        assert found.action == "verbatim" and found.content is content


def test_decode_error_finds_what_a_full_decode_finds():
    assert images.decode_error(JPEG) is None
    assert "truncated" in images.decode_error(JPEG[:-100])
