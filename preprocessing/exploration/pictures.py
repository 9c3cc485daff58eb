"""Thumbnails and a closer look at a few pictures, each read from its place in a shard."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import io
import warnings
from collections.abc import Sequence

import numpy as np

from common.errors import UserError
from common.files import join, read_range
from preprocessing.exploration.rows import Split

THUMBNAIL_PIXELS = 128

# A bucket answers late: these many pictures are asked for at a time.
_THREADS = 8

# Decoding what is larger takes memory out of proportion to a thumbnail.
_MOST_BYTES = 1 << 25
_MOST_PIXELS = 50_000_000

_LOOK_PIXELS = 48
# JPEG's own rounding tints grey pixels a little.
_GREY_SPREAD = 10


@dataclasses.dataclass(frozen=True)
class Look:
    """What the pixels of one picture say: whether all are grey, and their mean colour."""

    grey: bool
    mean: np.ndarray


class Pictures:
    """The pictures of a split.

    Args:
        data_dir: directory of the shards.
        split: its manifest and rows.
    """

    def __init__(self, data_dir: str, split: Split):
        self._data_dir = data_dir
        self._split = split

    def thumbnails(self, rows: Sequence[int], *, square: bool) -> list[str | None]:
        """JPEGs of `THUMBNAIL_PIXELS` as data URIs; None for what cannot be drawn.

        Args:
            rows: numbers of rows whose pictures are stored.
            square: cut the centre square out, else show the whole picture.
        """
        return self._each(rows, lambda jpeg: _thumbnail(jpeg, square))

    def looks(self, rows: Sequence[int]) -> list[Look | None]:
        """A closer look at some pictures, made small; None for what cannot be decoded."""
        return self._each(rows, _look)

    def _each(self, rows, function):
        def one(row: int):
            jpeg = self._read(int(row))
            return None if jpeg is None else function(jpeg)

        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(one, rows))

    def _read(self, row: int) -> bytes | None:
        rows = self._split.rows
        shard = self._split.manifest.shards[rows.shard[row]].name
        path = join(self._data_dir, shard)
        offset, length = int(rows.jpeg_offset[row]), int(rows.jpeg_length[row])
        if length > _MOST_BYTES or int(rows.width[row]) * int(rows.height[row]) > _MOST_PIXELS:
            return None
        try:
            jpeg = read_range(path, offset, length)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
        if len(jpeg) != length or not jpeg.startswith(b"\xff\xd8"):
            raise UserError(
                f"{path} is damaged at byte {offset}: `python -m preprocessing.verify"
                f" --data_dir={self._data_dir} --split={self._split.name}` names what is wrong"
            )
        return jpeg


def _thumbnail(jpeg: bytes, square: bool) -> str | None:
    from PIL import ImageOps

    box = (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)
    image = _decode_small(jpeg, box)
    if image is None:
        return None
    if square:
        image = ImageOps.fit(image, box)
    else:
        image.thumbnail(box)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _look(jpeg: bytes) -> Look | None:
    image = _decode_small(jpeg, (_LOOK_PIXELS, _LOOK_PIXELS))
    if image is None:
        return None
    pixels = np.asarray(image.resize((_LOOK_PIXELS, _LOOK_PIXELS), reducing_gap=2.0), np.float64)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return Look(bool(np.quantile(spread, 0.99) <= _GREY_SPREAD), pixels.mean(axis=(0, 1)))


def _decode_small(jpeg: bytes, at_least: tuple[int, int]):
    """The picture in RGB, decoded at a fraction of its size where that is enough for a box."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
            image.draft("RGB", (2 * at_least[0], 2 * at_least[1]))
            return image.convert("RGB")
    except Exception:  # what Pillow raises for bad bytes is an open set
        return None
