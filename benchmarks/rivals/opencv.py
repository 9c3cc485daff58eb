"""OpenCV in threads: decode, random crop, bilinear resize, flip, uint8 batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from benchmarks.rivals.serve import (
    BATCH,
    MAX_ASPECT,
    MIN_AREA,
    SIZE,
    THREADS,
    photo_paths,
    serve,
    shuffled_forever,
)


def _read(path: str) -> np.ndarray:
    with open(path, "rb") as file:
        image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
    top, left, height, width = _crop(*image.shape[:2])
    part = image[top : top + height, left : left + width]
    resized = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(resized, 1) if random.random() < 0.5 else resized


def _crop(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part."""
    for _ in range(100):
        area = random.uniform(MIN_AREA, 1.0) * height * width
        aspect = random.uniform(0.75, MAX_ASPECT)
        rows, columns = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
        if 0 < rows <= height and 0 < columns <= width:
            top, left = random.randint(0, height - rows), random.randint(0, width - columns)
            return top, left, rows, columns
    return 0, 0, height, width


def _batches(photos: str) -> Iterator[np.ndarray]:
    cv2.setNumThreads(1)  # the threads are ours
    paths = shuffled_forever(photo_paths(photos))
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(_read, next(paths)) for _ in range(2 * BATCH)]
        while True:
            ready, waiting = waiting[:BATCH], waiting[BATCH:]
            waiting += [pool.submit(_read, next(paths)) for _ in range(BATCH)]
            yield np.stack([image.result() for image in ready])


if __name__ == "__main__":
    serve(_batches, __doc__)
