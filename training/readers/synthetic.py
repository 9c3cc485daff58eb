"""Made-up examples for speed tests: as many, as large and in as many shards as ImageNet's."""

from __future__ import annotations

import functools
import io
from collections.abc import Collection

import numpy as np

from common.errors import UserError
from common.files import sha256_of_bytes
from preprocessing.class_list import imagenet_synsets
from preprocessing.examples import encode_example
from training.shards import Shards

SYNTHETIC = "synthetic"

# Examples and shards of each split; --train_split=train[:6400] takes fewer.
SPLITS = {"train": (1_281_167, 1024), "validation": (50_000, 128)}

# Different photos that there are. Decoding one takes as long as one of ImageNet's.
NUM_PHOTOS = 16
WIDTH, HEIGHT = 500, 375
JPEG_QUALITY = 95


class SyntheticShards(Shards):
    """Shards that are nowhere: example i has photo i mod `NUM_PHOTOS` and class i mod 1,000."""

    def read(
        self, shard: int, first: int, count: int, bad: Collection[int] = frozenset()
    ) -> list[bytes]:
        example = self.first_examples[shard] + first
        return [b"" if first + i in bad else made_up_record(example + i) for i in range(count)]


def open_synthetic(split: str) -> Shards:
    """A split of made-up examples; `data_dir` is not looked at.

    Raises:
        UserError: it is neither `train` nor `validation`.
    """
    if split not in SPLITS:
        raise UserError(f"synthetic data has no split {split!r}, only {', '.join(SPLITS)}")
    num_examples, num_shards = SPLITS[split]
    record_bytes = len(made_up_record(0))
    ends = np.arange(num_examples // num_shards + 2, dtype=np.int64) * record_bytes
    small, num_large = divmod(num_examples, num_shards)
    version = f"{split} {num_examples} {num_shards} {NUM_PHOTOS} {WIDTH}x{HEIGHT} {JPEG_QUALITY}"
    return SyntheticShards(
        paths=tuple(f"{SYNTHETIC}/{split}-{n:05d}-of-{num_shards:05d}" for n in range(num_shards)),
        bounds=tuple(ends[: small + (n < num_large) + 1] for n in range(num_shards)),
        name=f"{SYNTHETIC}:{split}",
        classes=imagenet_synsets(),
        fingerprint=sha256_of_bytes(f"{SYNTHETIC} {version}".encode()),
    )


def made_up_record(example: int) -> bytes:
    """The record of an example, made anew from its number."""
    classes = imagenet_synsets()
    class_index = example % len(classes)
    head, jpeg, tail = encode_example(
        made_up_photo(example % NUM_PHOTOS),
        width=WIDTH,
        height=HEIGHT,
        class_index=class_index,
        class_name=classes[class_index],
        class_text=classes[class_index],
        file_name=f"synthetic_{example:07d}.JPEG",
    )
    return head + jpeg + tail


@functools.cache
def made_up_photo(number: int) -> bytes:
    """A JPEG of about 110 kB: large shapes, and grain that takes as many bits as a photo's."""
    from PIL import Image

    rng = np.random.default_rng([20_150_409, number])
    shapes = Image.fromarray(rng.integers(30, 226, (6, 8, 3), np.uint8))
    smooth = np.asarray(shapes.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    grain = rng.normal(0, 9, (HEIGHT, WIDTH, 1)).astype(np.float32)
    pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()
