import collections
import hashlib
import json
import random

import numpy as np

from preprocessing.duplicates import as_hashes, groups_of_equal, pairs_of_equal
from preprocessing.manifest import load_manifest

from .conftest import encoded


def hashes_of(values):
    return as_hashes([hashlib.sha256(str(value).encode()).hexdigest() for value in values])


def test_groups_and_pairs_are_what_dictionaries_find():
    rng = random.Random(0)
    for size, kinds in ((0, 1), (1, 1), (2, 1), (500, 400), (500, 20), (300, 10**6)):
        ours, theirs = ([rng.randrange(kinds) for _ in range(size)] for _ in range(2))
        places = collections.defaultdict(list)
        for position, value in enumerate(ours):
            places[value].append(position)
        expected = sorted(group for group in places.values() if len(group) > 1)
        assert [group.tolist() for group in groups_of_equal(hashes_of(ours))] == expected
        first = {value: position for position, value in reversed(list(enumerate(theirs)))}
        expected = [(place, first[value]) for place, value in enumerate(ours) if value in first]
        assert list(pairs_of_equal(hashes_of(ours), hashes_of(theirs))) == expected
    assert np.all(as_hashes(["a" * 64])[:1] == as_hashes(["a" * 64]))


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_copies_within_a_split_and_between_splits_are_listed(tree, tmp_path, build, command):
    photo, other = (tree / "cat/cat_0.JPEG").read_bytes(), encoded(seed=12345)
    (tree / "dog/copy.JPEG").write_bytes(photo)
    (tree / "fox/copy.JPEG").write_bytes(photo)
    for name in ("empty_1", "empty_2"):  # equal too, but not stored
        (tree / f"cat/{name}.JPEG").write_bytes(b"")
    held = tmp_path / "held"
    for folder in ("cat", "dog", "fox"):
        (held / folder).mkdir(parents=True)
        (held / folder / "own.JPEG").write_bytes(encoded(seed=5000 + ord(folder[0])))
    (held / "fox/seen.JPEG").write_bytes(photo)
    (held / "fox/unseen.JPEG").write_bytes(other)
    out = build(tree, tmp_path / "out", max_rejected_fraction=0.2)
    assert lines_of(out / "train/duplicates.jsonl") == [
        {
            "sha256": hashlib.sha256(photo).hexdigest(),
            "keys": ["cat/cat_0.JPEG", "dog/copy.JPEG", "fox/copy.JPEG"],
        }
    ]
    assert load_manifest(str(out), "train").num_duplicates == 2
    assert lines_of(out / "train/also_in.jsonl") == []
    flags = [f"--source={held}", f"--output_dir={out}", "--num_shards=2", "--split=validation"]
    code, text = command(*flags)
    assert code == 0 and "1 images of 'validation' are also in 'train'" in text
    (shared,) = lines_of(out / "validation/also_in.jsonl")
    assert (shared["key"], shared["split"]) == ("fox/seen.JPEG", "train")
    assert shared["key_there"] in ("cat/cat_0.JPEG", "dog/copy.JPEG", "fox/copy.JPEG")
