"""torchvision: ImageFolder, RandomResizedCrop and flip, a DataLoader with worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torchvision import datasets, transforms

from benchmarks.rivals.serve import BATCH, MAX_ASPECT, MIN_AREA, SIZE, THREADS, serve


def _batches(photos: str) -> Iterator[object]:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=(MIN_AREA, 1.0), ratio=(0.75, MAX_ASPECT)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(photos, transform),
        batch_size=BATCH,
        shuffle=True,
        num_workers=THREADS,
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        yield from loader


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(_batches, __doc__)
