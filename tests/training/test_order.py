import itertools

import numpy as np
import pytest

from training.order import (
    COUNT,
    FIRST,
    PLACE,
    SHARD,
    Share,
    epoch_order,
    stream_windows,
    window_permutation,
)

# (sizes of the shards, streams, window)
SHAPES = [
    ([1], 1, 1),
    ([1], 64, 16),
    ([10], 64, 16),
    ([7, 0, 5], 4, 3),
    ([16, 16, 16], 4, 16),
    ([100, 3, 57, 1], 8, 16),
    ([64], 64, 16),
    ([500, 499, 501], 64, 16),
    ([33] * 20, 7, 5),
    ([1] * 30, 4, 16),
]


def delivered(sizes, num_streams, window, seed, epoch):
    """(shard, record) in the order in which one record of each stream in turn gives them."""
    streams = [
        [
            (int(row[SHARD]), int(row[FIRST] + record))
            for row in windows
            for record in window_permutation(seed, epoch, row)
        ]
        for windows in stream_windows(sizes, num_streams, window, seed, epoch)
    ]
    assert len(streams) == num_streams
    nothing = object()
    rows = itertools.zip_longest(*streams, fillvalue=nothing)
    return [record for row in rows for record in row if record is not nothing], streams


@pytest.mark.parametrize(("sizes", "num_streams", "window"), SHAPES)
def test_every_epoch_delivers_each_record_once(sizes, num_streams, window):
    everything = sorted((s, r) for s, size in enumerate(sizes) for r in range(size))
    for seed, epoch in itertools.product((0, 1), (0, 1, 7)):
        order, _ = delivered(sizes, num_streams, window, seed, epoch)
        assert sorted(order) == everything


@pytest.mark.parametrize(("sizes", "num_streams", "window"), SHAPES)
def test_streams_differ_by_at_most_one_record_and_the_longer_come_first(sizes, num_streams, window):
    _, streams = delivered(sizes, num_streams, window, 3, 1)
    lengths = [len(stream) for stream in streams]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


@pytest.mark.parametrize(("sizes", "num_streams", "window"), SHAPES)
def test_the_order_of_an_epoch_is_that_of_taking_from_the_streams_in_turn(
    sizes, num_streams, window
):
    order, _ = delivered(sizes, num_streams, window, 5, 2)
    firsts = [0, *itertools.accumulate(sizes)]
    expected = [firsts[shard] + record for shard, record in order]
    assert epoch_order(sizes, num_streams, window, 5, 2).tolist() == expected


def test_a_window_knows_its_place_in_its_stream():
    for windows in stream_windows([100, 3, 57, 1], 8, 16, 0, 0):
        assert windows[:, PLACE].tolist() == [0, *np.cumsum(windows[:, COUNT])[:-1]]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 5, 8, 64])
@pytest.mark.parametrize("start", [0, 7, 500, 1001])
def test_workers_share_every_position_in_pairs(num_workers, start):
    shares = [Share(start, worker, num_workers) for worker in range(num_workers)]
    positions = np.arange(start - 3, start + 16 * num_workers)
    taken = np.stack([share.takes(positions) for share in shares])
    assert taken.sum(axis=0).tolist() == [0] * 3 + [1] * 16 * num_workers
    pairs = taken[:, 3:].reshape(num_workers, -1, 2)
    assert np.array_equal(pairs[..., 0], pairs[..., 1])


def test_windows_stay_within_their_shard_and_size():
    sizes = [100, 3, 57, 1]
    for windows in stream_windows(sizes, 8, 16, 0, 0):
        for shard, first, count, _ in windows:
            assert 1 <= count <= 16
            assert first >= 0 and first + count <= sizes[shard]


def test_a_stream_reads_its_shards_from_front_to_back():
    for windows in stream_windows([500, 499, 501], 4, 16, 0, 0):
        for one, following in itertools.pairwise(windows):
            if one[SHARD] == following[SHARD]:
                assert following[FIRST] == one[FIRST] + one[COUNT]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(delivered([50, 50, 50], 8, 16, seed, epoch)[0])
        for seed in range(4)
        for epoch in range(5)
    }
    assert len(orders) == 20
    assert delivered([50, 50], 8, 16, 1, 2) == delivered([50, 50], 8, 16, 1, 2)


def test_records_are_shuffled_within_and_between_shards():
    _, streams = delivered([200] * 8, 8, 16, 0, 0)
    order, _ = delivered([200] * 8, 8, 16, 0, 0)
    for stream in streams:
        places = np.array([record for _, record in stream])
        assert np.mean(np.diff(places) == 1) < 0.2  # nearly no neighbours stay neighbours
    assert min(len({shard for shard, _ in order[i : i + 8]}) for i in range(0, 1600, 8)) >= 6


def test_a_windows_permutation_depends_on_its_place():
    pieces = [np.array(row) for row in ((0, 0, 16, 0), (0, 16, 16, 16), (1, 0, 16, 0))]
    permutations = [tuple(window_permutation(0, 0, piece)) for piece in pieces]
    assert len(set(permutations)) == 3
    assert all(sorted(p) == list(range(16)) for p in permutations)
