"""ImageNet shards as tf-slim and the TPU models write them: `train-00000-of-01024`, no manifest.

Their labels are 1 to 1000, since 0 is kept for a background class that no image has.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

from common import files
from common.errors import UserError
from preprocessing.class_list import enumerate_names, imagenet_synsets
from training.readers.offsets import fingerprint_of, record_bounds
from training.readers.parsing import parser
from training.shards import Shards

_NAME = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})")

# Shards that are looked into when a data set is opened.
MOST_PEEKED = 16


@dataclasses.dataclass(frozen=True)
class ClassicSplit:
    """The files of a split, all of them: its name, and their paths in order."""

    split: str
    paths: tuple[str, ...]


class _Peeked(NamedTuple):
    """A record that was looked into."""

    where: str
    label: int
    synset: str


def find_classic(data_dir: str, split: str) -> ClassicSplit | None:
    """The shards of a split in a directory, or below it in one named after the split.

    Raises:
        UserError: some are missing, or there are two sets of them.
    """
    for directory in (data_dir, files.join(data_dir, split)):
        if names := _shard_names(directory, split):
            return ClassicSplit(split, tuple(files.join(directory, name) for name in names))
    return None


def _shard_names(directory: str, split: str) -> list[str]:
    if not files.is_directory(directory):
        return []
    matches = [_NAME.fullmatch(entry.name) for entry in files.list_directory(directory)]
    found = [match for match in matches if match and match["split"] == split]
    totals = sorted({match["total"] for match in found})
    if len(totals) > 1:
        raise UserError(
            f"{directory} holds shards of {split!r} of more than one set:"
            f" {enumerate_names([f'{split}-?????-of-{total}' for total in totals])}; leave one"
        )
    if not found:
        return []
    names = [f"{split}-{number:05d}-of-{totals[0]}" for number in range(int(totals[0]))]
    missing = sorted(set(names) - {match[0] for match in found})
    if missing:
        raise UserError(
            f"{directory} lacks {enumerate_names(missing)}: {len(names) - len(missing):,} of the"
            f" {len(names):,} shards of split {split!r} are there; fetch the rest"
        )
    return names


def open_classic(found: ClassicSplit) -> Shards:
    """Learns where records lie, and makes sure that labels mean what they should.

    Raises:
        UserError: the shards hold no records, others than expected, or labels of other classes.
    """
    bounds = record_bounds(found.paths)
    shards = Shards(
        paths=found.paths,
        bounds=tuple(bounds),
        name=found.split,
        classes=imagenet_synsets(),
        fingerprint=fingerprint_of(found.paths, bounds),
        parse=parser(
            "image/encoded", "image/class/label", "image/filename", len(imagenet_synsets()), 1
        ),
    )
    if not shards.num_examples:
        raise UserError(f"the shards of split {found.split!r}, {found.paths[0]} ..., are empty")
    if _have_imagenet_classes(_peek(shards), shards.classes):
        return shards
    logging.warning(
        "the shards of split %r name classes that are not ImageNet's synsets: their labels are"
        " taken as 1 to %d, and classes are called by their numbers",
        found.split,
        len(shards.classes),
    )
    classes = tuple(f"class_{number:04d}" for number in range(len(shards.classes)))
    return dataclasses.replace(shards, classes=classes)


def _have_imagenet_classes(records: Sequence[_Peeked], synsets: Sequence[str]) -> bool:
    """Whether the records' synsets are ImageNet's, or not told; their labels must fit them.

    Raises:
        UserError: a label is out of range, or is not the place of its synset in ImageNet's order.
    """
    places = {synset: place for place, synset in enumerate(synsets, 1)}
    for where, label, synset in records:
        if not 1 <= label <= len(synsets):
            raise UserError(
                f"{where}, has label {label}: classic shards number their classes from 1 to"
                f" {len(synsets)}, and 0 is the background; build shards with"
                " preprocessing.build_dataset from data whose labels begin at 0"
            )
        if synset in places and places[synset] != label:
            raise UserError(
                f"{where}, has label {label} for synset {synset}, which is class"
                f" {places[synset]} of 1 to {len(synsets)} in the classic numbering: these labels"
                " are numbered otherwise; build shards with preprocessing.build_dataset"
            )
    return all(record.synset in places or not record.synset for record in records)


def _peek(shards: Shards) -> list[_Peeked]:
    """First and last record of some shards, the first and the last shard among them."""
    filled = [number for number, size in enumerate(shards.sizes) if size]
    step = max(1, len(filled) // MOST_PEEKED)
    places = {
        (number, record)
        for number in {*filled[::step], filled[-1]}
        for record in (0, shards.sizes[number] - 1)
    }
    return [_look_into(shards, *place) for place in sorted(places)]


def _look_into(shards: Shards, shard: int, record: int) -> _Peeked:
    import tensorflow as tf

    where = shards.where(shard, record)
    try:
        example = tf.train.Example.FromString(shards.read(shard, record, 1)[0])
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}, is no tf.train.Example") from None
    feature = example.features.feature
    labels = feature["image/class/label"].int64_list.value
    if len(labels) != 1 or len(feature["image/encoded"].bytes_list.value) != 1:
        raise UserError(
            f"{where}, is no classic ImageNet record: its features are"
            f" {enumerate_names(sorted(k for k, v in feature.items() if v.WhichOneof('kind')))}"
            " and it needs image/encoded and image/class/label"
        )
    synsets = feature["image/class/synset"].bytes_list.value
    return _Peeked(where, labels[0], synsets[0].decode("utf-8", "replace") if synsets else "")
