"""What the page about a data set computes from its rows, against the plain way of doing it."""

import collections
import hashlib

import numpy as np
import pyarrow as pa
import pytest

from preprocessing.exploration.duplicates import find_duplicates
from preprocessing.exploration.numbers import balance, extremes
from preprocessing.exploration.rows import _first_bits, read_keys, read_rows

from .explore_data import Picture, plain_pictures, write_split


def test_rows_are_those_of_the_table(tmp_path):
    pictures = [*plain_pictures(9), Picture("red/x", b"", 0, 0, "rejected", "empty")]
    write_split(tmp_path / "data", "train", pictures, num_shards=3)
    rows = read_rows(str(tmp_path / "data"), "train")
    hashes = [hashlib.sha256(picture.content).hexdigest() for picture in pictures]
    assert rows.content.tolist() == [int(value[:16], 16) for value in hashes]
    assert rows.stored.tolist() == [True] * 9 + [False]
    assert [rows.outcomes[code] for code in rows.outcome] == [("verbatim", "")] * 9 + [
        ("rejected", "empty")
    ]
    assert rows.label.tolist() == [0, 1] * 4 + [0, 1]
    unread = _first_bits(pa.array(["", hashes[0], None]).slice(1))
    assert unread.tolist() == [int(hashes[0][:16], 16), 0]


def test_duplicates_are_those_of_a_comparison_of_all_pairs():
    rng = np.random.default_rng(5)
    for _ in range(20):
        contents = [rng.integers(0, 30, size).astype(np.uint64) for size in (40, 0, 25)]
        labels = [rng.integers(0, 3, len(one)).astype(np.int32) for one in contents]
        found = find_duplicates("abc", contents, labels, most_groups=99, most_members=3)
        members = collections.defaultdict(list)
        for split, (keys, classes) in enumerate(zip(contents, labels, strict=True)):
            for place, (key, label) in enumerate(zip(keys, classes, strict=True)):
                if key:
                    members[key].append((split, place, label))
        groups = [group for group in members.values() if len(group) > 1]
        for number, name in enumerate("abc"):
            own = [[m for m in group if m[0] == number] for group in groups]
            own = [group for group in own if len(group) > 1]
            within = found.within[name]
            assert within.contents == len(own)
            assert within.spare == sum(len(group) - 1 for group in own)
            assert within.mixed == sum(len({m[2] for m in group}) > 1 for group in own)
        pair = next(p for p in found.between if (p.first, p.second) == ("a", "c"))
        both = [group for group in groups if {m[0] for m in group} == {0, 2}]
        assert pair.contents == len(both) == sum(group.across for group in found.groups)
        assert pair.in_second == sum(m[0] == 2 for group in both for m in group)
        assert pair.mixed == sum(len({m[2] for m in group}) > 1 for group in both)
        assert found.num_groups == len(groups) == len(found.groups)
        for group in found.groups:
            (key,) = {contents[split][place] for split, place in group.members}
            assert group.size == len(members[key])
            assert len(group.members) == min(3, group.size)
        ranks = [(not group.mixed, not group.across, -group.size) for group in found.groups]
        assert ranks == sorted(ranks)


def test_keys_are_found_in_any_batch(tmp_path, monkeypatch):
    pictures = list(plain_pictures(23))
    write_split(tmp_path / "data", "train", pictures, num_shards=5)
    monkeypatch.setattr("preprocessing.exploration.rows._BATCH_ROWS", 3)
    for wanted in ([], [22], [0, 0, 5, 4], [*range(23)]):
        keys = read_keys(str(tmp_path / "data"), "train", wanted)
        assert keys == {row: pictures[row].key for row in wanted}
    assert len(read_rows(str(tmp_path / "data"), "train").label) == 23


def test_balance_of_classes():
    found = balance(np.array([0, 2, 8, 2, 0]))
    assert (found["missing"], found["least"], found["most"], found["ratio"]) == (2, 2, 8, 4)
    assert balance(np.array([5, 5, 5]))["effective"] == pytest.approx(3)
    # Entropy of 3/4 and 1/4 is .5623 nats.
    assert balance(np.array([3, 1]))["effective"] == pytest.approx(1.7548, abs=1e-4)
    assert balance(np.zeros(3, int))["ratio"] is None


def test_extreme_classes_are_named_once():
    assert extremes(np.array([4, 1, 9, 1, 9]), 2) == ([2, 4], [1, 3])
    assert extremes(np.array([3, 3]), 5) == ([0], [1])
    assert extremes(np.array([3]), 5) == ([0], [])
