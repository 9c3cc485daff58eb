import collections
import dataclasses
import json

import pytest

from common.errors import UsageError
from common.files import sha256_of_bytes
from preprocessing.plan import (
    Plan,
    PlannedImage,
    deal,
    difference,
    in_holdout,
    load_plan,
    read_shard,
    save_plan,
    write_body,
)

IMAGES = [
    PlannedImage(key, number % 7, number, key)
    for number, key in enumerate(f"c{number % 7}/{number:05d}.JPEG" for number in range(1003))
]
ODD_KEYS = ["a/line\nbreak", 'a/tab\t"quote" \\', "b/図 föhn \u2028.JPEG", "b/not utf-8 \udcff"]


@pytest.mark.parametrize("num_shards", [1, 2, 7, 64, 1003])
def test_every_image_is_dealt_once_and_sizes_differ_by_at_most_one(num_shards):
    shards = deal(IMAGES, num_shards, seed=5)
    assert len(shards) == num_shards
    assert sorted(image for shard in shards for image in shard) == sorted(IMAGES)
    sizes = {len(shard) for shard in shards}
    assert max(sizes) - min(sizes) <= 1


def test_the_permutation_depends_on_seed_and_keys_alone():
    assert deal(IMAGES, 8, seed=1) == deal(list(IMAGES), 8, seed=1)
    assert deal(IMAGES, 8, seed=1) != deal(IMAGES, 8, seed=2)
    assert deal(IMAGES, 8, seed=-3) != deal(IMAGES, 8, seed=3)
    order = [image for shard in deal(IMAGES, 8, seed=1) for image in shard]
    without_first = [image for image in order if image != IMAGES[0]]
    assert without_first == [image for shard in deal(IMAGES[1:], 3, seed=1) for image in shard]


def test_the_permutation_mixes_classes():
    for shard in deal(IMAGES, 7, seed=0):
        counts = collections.Counter(image.class_index for image in shard)
        assert len(counts) == 7 and max(counts.values()) < 45  # 20 or 21 expected


def test_more_shards_than_images_are_refused_with_the_largest_number():
    with pytest.raises(UsageError, match=r"--num_shards=4 .* can be 3 at most"):
        deal(IMAGES[:3], 4, seed=0)


def test_the_holdout_is_disjoint_and_of_about_the_wanted_size():
    held = {image.key for image in IMAGES if in_holdout(image.key, 0.2)}
    assert 150 < len(held) < 250
    assert held > {image.key for image in IMAGES if in_holdout(image.key, 0.1)}


def make_plan(images, num_shards=2, **changes) -> tuple[Plan, bytes]:
    shards = deal(images, num_shards, seed=0)
    body, offsets = write_body(shards)
    plan = Plan(
        split="train",
        flags={"seed": 0, "num_shards": num_shards},
        source={"kind": "class folders", "name": "photos"},
        classes=("a", "b"),
        class_texts=("an a", "a b"),
        class_list_source="folders",
        class_list_sha256=None,
        versions={"pillow": "1"},
        num_images=tuple(map(len, shards)),
        num_bytes=tuple(sum(image.num_bytes for image in shard) for shard in shards),
        offsets=tuple(offsets),
        body_sha256=sha256_of_bytes(body),
    )
    return dataclasses.replace(plan, **changes), body


def test_a_saved_plan_reads_back_shard_by_shard_whatever_the_names(tmp_path):
    images = sorted(
        image
        for key in ODD_KEYS
        for image in (
            PlannedImage(key, 0, 9, key),
            PlannedImage(f"{key}2", 0, 9, ""),
            PlannedImage(f"{key}3", 0, 9, "", 512),
            PlannedImage(f"{key}4", 0, 9, key, -1, ((0.0, 0.25, 0.5, 1.0), (0.1, 0.2, 0.3, 0.4))),
        )
    )
    plan, body = make_plan(images, num_shards=3)
    save_plan(str(tmp_path), plan, body)
    assert load_plan(str(tmp_path), "train") == plan
    read = [read_shard(str(tmp_path), plan, index) for index in range(3)]
    assert read == deal(images, 3, seed=0)
    lines = (tmp_path / "train" / "plan.jsonl").read_bytes().splitlines()
    keys = sorted(json.loads(line)[0] for line in lines)
    assert keys == sorted(key + end for key in ODD_KEYS for end in ("", "2", "3", "4"))


def test_a_difference_of_plans_is_named():
    old, old_body = make_plan(IMAGES)
    assert difference(old, old_body, *make_plan(IMAGES)) is None
    moved = make_plan(IMAGES, source={"kind": "class folders", "name": "elsewhere"})
    assert difference(old, old_body, *moved) is None
    for new, words in (
        (make_plan(IMAGES, num_shards=3), "--num_shards was 2 and is 3"),
        (make_plan(IMAGES, classes=("a", "c")), "class list"),
        (make_plan(IMAGES, versions={"pillow": "2"}), "pillow was 1 and is 2"),
        (make_plan(IMAGES, class_list_sha256="f"), "class list"),
        (make_plan(IMAGES[1:]), f"1 are gone ('{IMAGES[0].key}')"),
        (make_plan([*IMAGES, PlannedImage("z/z", 0, 1, "z/z")]), "1 are new ('z/z')"),
        (make_plan([IMAGES[0]._replace(path="", offset=4), *IMAGES[1:]]), "place"),
        (make_plan([IMAGES[0]._replace(boxes=((0, 0, 1, 1),)), *IMAGES[1:]]), "boxes"),
        (make_plan(IMAGES, class_texts=("one", "two")), "texts of the classes"),
        (make_plan([IMAGES[0]._replace(num_bytes=77), *IMAGES[1:]]), "another size"),
    ):
        assert words in difference(old, old_body, *new)
