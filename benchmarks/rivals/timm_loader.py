"""timm's loader as its training script makes it, without its colour jitter."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from timm.data import create_dataset, create_loader

from benchmarks.rivals.serve import BATCH, MAX_ASPECT, MIN_AREA, SIZE, THREADS, serve


def _batches(photos: str) -> Iterator[object]:
    loader = create_loader(
        create_dataset("", root=photos, is_training=True),
        input_size=(3, SIZE, SIZE),
        batch_size=BATCH,
        is_training=True,
        scale=(MIN_AREA, 1.0),
        ratio=(0.75, MAX_ASPECT),
        color_jitter=None,
        interpolation="bilinear",
        num_workers=THREADS,
        use_prefetcher=False,
        pin_memory=False,
        persistent_workers=True,
    )
    while True:
        yield from loader


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(_batches, __doc__)
