"""The photos that artifacts are compared on."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from training.image_ops import decode_for_evaluation
from training.models import ModelRecord
from training.shard_errors import named_shard_errors
from training.shards import Shards


@dataclasses.dataclass(frozen=True, eq=False)
class ParityImages:
    """Real photos.

    Attributes:
        jpeg: bytes of their files.
        images: the model's input, (n, height, width, 3) float32.
        class_index: (n,) int64.
    """

    jpeg: list[bytes]
    images: np.ndarray
    class_index: np.ndarray

    @classmethod
    def read(cls, shards: Shards, record: ModelRecord, count: int) -> ParityImages:
        """Photos from all over the split, at even distances; all of them if there are fewer.

        Raises:
            UserError: a record is damaged; the message names it.
        """
        with named_shard_errors(shards):
            examples = [
                shards.parse(tf.constant(shards.read(shard, place, 1)[0]))
                for shard, place in _places(shards.sizes, count)
            ]
            jpeg = [example["jpeg"].numpy() for example in examples]
            images = preprocess(jpeg, record)
        return cls(jpeg, images, np.array([int(e["class_index"]) for e in examples], np.int64))

    def take(self, places: np.ndarray) -> ParityImages:
        """Those at `places`."""
        return ParityImages(
            [self.jpeg[place] for place in places], self.images[places], self.class_index[places]
        )


def preprocess(jpeg: list[bytes], record: ModelRecord) -> np.ndarray:
    """The model's input, (n, height, width, 3) float32, as evaluation makes it."""
    size = record.config.resolution
    return np.stack(
        [
            decode_for_evaluation(
                tf.constant(content), size, record.input_range, record.evaluation_preprocessing
            ).numpy()
            for content in jpeg
        ]
    )


def _places(sizes: list[int], count: int) -> list[tuple[int, int]]:
    """`count` records, (shard, number in it), evenly spaced over shards of these sizes."""
    total = sum(sizes)
    count = min(count, total)
    ends = np.cumsum(sizes)
    places = []
    for position in ((2 * i + 1) * total // (2 * count) for i in range(count)):
        shard = int(np.searchsorted(ends, position, side="right"))
        places.append((shard, position - int(ends[shard]) + sizes[shard]))
    return places
