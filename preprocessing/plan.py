"""Which image goes into which shard: a pure function of the sorted list, the seed and the number.

Images are ordered by a keyed hash of their keys and cut into shards whose sizes differ by at most
one. The plan is kept in two files, so that workers read only their part of it: a body of one JSON
line per image, in order, and a header with the byte offset of each shard's first line, which also
says what else decides the bytes of the shards.

A line is `[key, class index, bytes]` for an image that is a file named by its key, and goes on with
`path, offset` for one that lies elsewhere, and with its boxes if it has any.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from common.errors import UsageError, UserError
from common.files import exists, read_json, read_range, write_bytes, write_json
from preprocessing import layout
from preprocessing.bounding_boxes import Box
from preprocessing.sources.listing import WHOLE_FILE


class PlannedImage(NamedTuple):
    """An image of a shard.

    Attributes:
        key: `class/file`, the same wherever the image lies.
        class_index: 0-based position in the class list.
        num_bytes: size of the encoded image where it lies.
        path: the file that holds it, relative to the source; "" where the source is that file.
        offset: its first byte in that file; `WHOLE_FILE` if the file is the image.
        boxes: `(xmin, ymin, xmax, ymax)` of each object, as fractions of width and height.
    """

    key: str
    class_index: int
    num_bytes: int
    path: str
    offset: int = WHOLE_FILE
    boxes: tuple[Box, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """The header of a plan.

    Attributes:
        split: name of the split.
        flags: the flags that decide the bytes of the shards.
        source: what the images were listed from: its kind, and its name without folders.
        classes: class names in the order of their indices.
        class_texts: what each class is called in plain words.
        class_list_source: see `class_list.ClassList.source`.
        class_list_sha256: SHA-256 of the class file, when there was one.
        versions: of the libraries that decide the bytes of the shards.
        num_images: of each shard.
        num_bytes: of the images of each shard, where they lie.
        offsets: where each shard's lines begin in the body, in bytes, and where the last ends.
        body_sha256: SHA-256 of the body.
    """

    split: str
    flags: dict[str, Any]
    source: dict[str, str]
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    class_list_source: str
    class_list_sha256: str | None
    versions: dict[str, str]
    num_images: tuple[int, ...]
    num_bytes: tuple[int, ...]
    offsets: tuple[int, ...]
    body_sha256: str

    @property
    def num_shards(self) -> int:
        return len(self.num_images)

    def shard_name(self, index: int) -> str:
        return layout.shard_name(self.split, index, self.num_shards)


def deal(images: Sequence[PlannedImage], num_shards: int, seed: int) -> list[list[PlannedImage]]:
    """Permutes `images`, which are sorted by key, and cuts them into `num_shards` lists.

    Raises:
        UsageError: there are fewer images than shards.
    """
    if num_shards > len(images):
        raise UsageError(
            f"--num_shards={num_shards} is more than there are images: it can be"
            f" {len(images)} at most"
        )
    seed_key = hashlib.blake2b(str(seed).encode()).digest()
    hashes = [_hash(image.key, seed_key) for image in images]
    order = sorted(range(len(images)), key=hashes.__getitem__)
    bounds = [len(images) * index // num_shards for index in range(num_shards + 1)]
    return [
        [images[position] for position in order[start:end]]
        for start, end in itertools.pairwise(bounds)
    ]


def in_holdout(key: str, fraction: float) -> bool:
    """Whether an image belongs to the validation split that is held out of a single tree.

    It depends on the key alone, not on a seed, so that two builds can never overlap.
    """
    return int.from_bytes(_hash(key, b"holdout"), "big") < fraction * 2**128


def write_body(shards: Iterable[Sequence[PlannedImage]]) -> tuple[bytes, list[int]]:
    """The body of a plan, and where each shard begins in it, and the last one ends."""
    parts, offsets = [], [0]
    for shard in shards:
        part = "".join(map(_to_line, shard)).encode("ascii")
        parts.append(part)
        offsets.append(offsets[-1] + len(part))
    return b"".join(parts), offsets


def parse_body(body: bytes) -> Iterator[PlannedImage]:
    # One array is parsed several times as quickly as many lines.
    lines = json.loads(b"[" + b",".join(body.splitlines()) + b"]")
    return map(_from_values, lines)


def _to_line(image: PlannedImage) -> str:
    if image.boxes:
        return json.dumps(image) + "\n"
    if image.path == image.key and image.offset == WHOLE_FILE:
        return json.dumps(image[:3]) + "\n"
    return json.dumps(image[:5]) + "\n"


def _from_values(values: list[Any]) -> PlannedImage:
    if len(values) == 3:
        return PlannedImage(*values, path=values[0])
    if len(values) == 5:
        return PlannedImage(*values)
    return PlannedImage(*values[:5], boxes=tuple(map(tuple, values[5])))


def save_plan(data_dir: str, plan: Plan, body: bytes) -> None:
    """Writes the body, then the header."""
    write_bytes(layout.split_path(data_dir, plan.split, layout.PLAN_BODY), body)
    write_json(layout.split_path(data_dir, plan.split, layout.PLAN), dataclasses.asdict(plan))


def load_plan(data_dir: str, split: str) -> Plan | None:
    """Reads the header of a plan; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    path = layout.split_path(data_dir, split, layout.PLAN)
    if not exists(path):
        return None
    value = read_json(path)
    try:
        for name in ("classes", "class_texts", "num_images", "num_bytes", "offsets"):
            value[name] = tuple(value[name])
        for name in ("flags", "source", "versions"):
            value[name] = dict(value[name])
        return Plan(**value)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error})") from None


def read_shard(data_dir: str, plan: Plan, index: int) -> list[PlannedImage]:
    """The images of one shard, in order."""
    path = layout.split_path(data_dir, plan.split, layout.PLAN_BODY)
    start, end = plan.offsets[index : index + 2]
    return list(parse_body(read_range(path, start, end - start)))


def difference(old: Plan, old_body: bytes, new: Plan, new_body: bytes) -> str | None:
    """What sets two plans of one split apart, in words; None if nothing does."""
    for name in sorted(old.flags.keys() | new.flags.keys()):
        was, now = old.flags.get(name), new.flags.get(name)
        if was != now:
            return f"--{name} was {was} and is {now}"
    if old.classes != new.classes:
        return f"the class list was {_classes(old)} and is {_classes(new)}"
    for name in sorted(old.versions.keys() | new.versions.keys()):
        was, now = old.versions.get(name), new.versions.get(name)
        if was != now:
            return f"the version of {name} was {was} and is {now}"
    if old.class_texts != new.class_texts:
        return "the texts of the classes differ"
    if old.body_sha256 != new.body_sha256:
        whole = hashlib.sha256(old_body).hexdigest() == old.body_sha256
        return _difference_of_images(old_body, new_body) if whole else "the images differ"
    if old.class_list_sha256 != new.class_list_sha256:
        return "the class list comes from another file"
    # What the source is called does not matter, as long as the same images lie in it.
    return None if dataclasses.replace(old, source=new.source) == new else "the plans differ"


def _difference_of_images(old_body: bytes, new_body: bytes) -> str:
    old, new = ({image.key: image for image in parse_body(body)} for body in (old_body, new_body))
    notes = []
    for note, keys in (
        ("are new", sorted(new.keys() - old.keys())),
        ("are gone", sorted(old.keys() - new.keys())),
        (
            "have another size, class, place or boxes",
            sorted(k for k in old.keys() & new if old[k] != new[k]),
        ),
    ):
        if keys:
            notes.append(f"{len(keys)} {note} ({keys[0]!r}{', ...' if len(keys) > 1 else ''})")
    return f"of the images, {', '.join(notes)}"


def _classes(plan: Plan) -> str:
    return f"{len(plan.classes)} classes ({plan.class_list_source}) from {plan.classes[0]!r} on"


def _hash(key: str, hash_key: bytes) -> bytes:
    return hashlib.blake2b(os.fsencode(key), digest_size=16, key=hash_key).digest()
