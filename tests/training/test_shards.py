"""Where an example of a split lies."""

import numpy as np
import pytest

from training.shards import Shards


def test_a_place_is_counted_by_shards_whole_or_cut():
    sizes = (3, 0, 2, 4)
    shards = Shards(
        paths=tuple("abcd"),
        bounds=tuple(np.arange(size + 1) for size in sizes),
        name="train",
        classes=("cat",),
        fingerprint="",
    )
    places = [(shard, record) for shard, size in enumerate(sizes) for record in range(size)]
    assert [shards.place_of(example) for example in range(9)] == places
    part = shards.part(1, 7, "train[1:7]")
    for example in range(1, 7):
        shard, record = part.place_of(example)
        # Its byte there is its byte in the whole.
        whole_shard, whole_record = places[example]
        assert part.paths[shard] == shards.paths[whole_shard]
        assert part.bounds[shard][record] == whole_record
    for example in (0, 7, -1):
        with pytest.raises(IndexError):
            part.place_of(example)
