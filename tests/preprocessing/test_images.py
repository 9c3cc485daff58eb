import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from preprocessing import images
from preprocessing.images import DECODE, ImagePolicy, inspect
from preprocessing.images.jpeg_header import read_jpeg_header
from preprocessing.images.reencode import smaller_size

from .conftest import ROOT, encoded

JPEG = encoded()


@pytest.fixture(scope="module")
def photos(reference_data) -> list[bytes]:
    paths = sorted((reference_data / "imagenet_sample").glob("*/*"))
    assert len(paths) == 500
    return [path.read_bytes() for path in paths]


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def difference(one, other) -> float:
    """Root of the mean squared difference, in levels of 256."""
    return float(np.sqrt(np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)))


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
        assert inspect(content, ImagePolicy(max_pixels=48 * 32)).action != "rejected"
        found = inspect(content, ImagePolicy(max_pixels=48 * 32 - 1))
        assert found.reason == "too many pixels" and (found.width, found.height) == (48, 32)


def test_the_pixel_limit_may_be_above_that_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for format in ("JPEG", "PNG", "BMP"):
        assert inspect(encoded(format) + b"\0").action != "rejected"


def test_a_small_file_that_claims_a_huge_picture_is_not_decoded():
    header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + header + b"\0" * 200
    assert inspect(bomb).reason in ("too many pixels", "damaged")


def test_real_photos_are_kept_with_the_sizes_that_pillow_finds(photos):
    for content in photos:
        found = inspect(content)
        assert (found.action, found.width, found.height) == ("verbatim", *opened(content).size)
        assert found.content is content
        assert inspect(content, ImagePolicy(validate=DECODE)) == found


def test_damage_in_a_real_photo_is_found_by_decoding_only(photos):
    for content in photos[::25]:
        middle = (read_jpeg_header(content).scan_start + len(content)) // 2
        end = middle + min(2000, (len(content) - middle) // 2)
        damaged = content[:middle] + bytes(end - middle) + content[end:]
        assert inspect(damaged).action == "verbatim"
        found = inspect(damaged, ImagePolicy(validate=DECODE))
        assert (found.action, found.reason) == ("rejected", "damaged")
        assert "Corrupt JPEG data" in found.detail
        assert inspect(damaged, ImagePolicy(shorter_side=40)).reason == "damaged"


def test_decode_error_finds_what_a_full_decode_finds():
    assert images.decode_error(JPEG) is None
    assert "truncated" in images.decode_error(JPEG[:-100])


@pytest.mark.parametrize("shorter_side", [20, 64, 256])
def test_a_smaller_photo_looks_like_tensorflows_antialiased_one(photos, shorter_side):
    policy = ImagePolicy(shorter_side=shorter_side)
    for content in photos[::25]:
        found = inspect(content, policy)
        width, height = opened(content).size
        if min(width, height) <= shorter_side:
            assert found == inspect(content) and found.content is content
            continue
        assert (found.action, found.reason) == ("resized", "")
        assert min(found.width, found.height) == shorter_side
        assert (
            abs(found.width / found.height - width / height) < 0.51 * width / height / shorter_side
        )
        theirs = tf.image.resize(
            tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"),
            (found.height, found.width),
            method="bicubic",
            antialias=True,
        )
        ours = tf.io.decode_jpeg(found.content, channels=3)
        # What encoding costs anyway, and little more: shifted by half a pixel it would be 10.
        again = io.BytesIO()
        pixels = np.clip(np.round(theirs), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(again, "JPEG", quality=95)
        cost = difference(tf.io.decode_jpeg(again.getvalue(), channels=3), pixels)
        assert difference(ours, pixels) < cost + 1


def test_a_large_photo_is_decoded_at_a_fraction_and_looks_the_same(photos):
    large = max(photos, key=lambda content: min(opened(content).size))
    assert min(opened(large).size) > 8 * 3 * 20
    for shorter_side in (20, 40, 80, 160):
        found = inspect(large, ImagePolicy(shorter_side=shorter_side, jpeg_quality=100))
        whole = opened(large).resize((found.width, found.height), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        whole.save(out, "JPEG", quality=100)
        assert difference(opened(found.content), opened(out.getvalue())) < 2


@pytest.mark.parametrize(
    ("size", "shorter_side", "expected"),
    [
        ((500, 375), 256, (341, 256)),
        ((375, 500), 256, (256, 341)),
        ((300, 300), 299, (299, 299)),
        ((3, 1000), 2, (2, 667)),
        ((65_500, 2), 1, (32_750, 1)),
    ],
)
def test_the_shorter_side_is_exact_and_the_longer_one_the_nearest(size, shorter_side, expected):
    assert smaller_size(*size, shorter_side) == expected
    if max(size) < 2000:
        found = inspect(encoded(size=size), ImagePolicy(shorter_side=shorter_side))
        assert (found.width, found.height) == opened(found.content).size == expected


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_images_are_never_enlarged(format):
    content = encoded(format)
    for shorter_side in (32, 33, 1000):
        assert inspect(content, ImagePolicy(shorter_side=shorter_side)) == inspect(content)
    assert inspect(content, ImagePolicy(shorter_side=31)).action == "resized"


def test_a_smaller_image_keeps_to_grey_and_to_the_quality_asked_for():
    def tables(jpeg):
        return opened(jpeg).quantization

    for mode in ("L", "RGB"):
        for quality in (30, 95, 100):
            out = io.BytesIO()
            Image.new(mode, (8, 8)).save(out, "JPEG", quality=quality)
            policy = ImagePolicy(shorter_side=16, jpeg_quality=quality)
            found = inspect(encoded(mode=mode), policy)
            assert opened(found.content).mode == mode
            assert tables(found.content) == tables(out.getvalue())
            assert inspect(encoded(mode=mode), policy).content == found.content


def test_other_images_are_repaired_and_made_smaller_in_one_encoding():
    policy = ImagePolicy(shorter_side=16, jpeg_quality=90)
    for content, reason in (
        (encoded("PNG", mode="RGBA"), "PNG file"),
        (encoded("PNG", mode="L"), "PNG file"),
        (encoded(mode="CMYK", quality=100), "CMYK JPEG"),
    ):
        found = inspect(content, policy)
        assert (found.action, found.reason) == ("resized", reason)
        assert opened(found.content).mode == "RGB"
        rgb = opened(content).convert("RGB").resize((24, 16), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        rgb.save(out, "JPEG", quality=90)
        assert found.content == out.getvalue()


def test_metadata_is_dropped_from_what_is_encoded_anew():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by whoever shows it: decoders in training do not
    for format, policy in (("JPEG", ImagePolicy(shorter_side=16)), ("PNG", ImagePolicy())):
        found = inspect(encoded(format, exif=exif, dpi=(300, 300)), policy)
        assert found.width > found.height
        assert not opened(found.content).getexif() and b"Exif" not in found.content
        assert opened(found.content).info["jfif_density"] == (1, 1)
    for content in (encoded(mode="CMYK", comment=b"remark"), encoded("GIF", comment=b"remark")):
        assert b"remark" in content and b"remark" not in inspect(content).content


def test_versions_name_the_strict_decoder_where_it_decides_something():
    assert set(images.encoder_versions()) == {"pillow", "libjpeg"}
    for policy in (ImagePolicy(validate=DECODE), ImagePolicy(shorter_side=8)):
        assert set(images.encoder_versions(policy)) == {"pillow", "libjpeg", "simplejpeg"}


def test_a_lossless_frame_is_kept_from_the_decoder_that_would_write_past_its_end():
    """In a process of its own, since it would end by a broken heap."""
    code = (
        "import tests.preprocessing.odd_files as odd\n"
        "from preprocessing.images import ImagePolicy, inspect\n"
        "for content in (odd.lossless(), odd.hide_behind_restart(odd.lossless())):\n"
        "    for _ in range(300):\n"
        "        found = inspect(content, ImagePolicy(validate='decode'))\n"
        "        assert found.action == 'repaired', found\n"
        "import gc; gc.collect()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
