"""Images of a TFDS data set: prepared by TFDS, then read in place from its TFRecord files."""

from __future__ import annotations

import collections
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from common.command import explain_system_error
from common.errors import UserError
from common.files import is_remote, join
from preprocessing.sources.listing import Listing, SourceImage, make_listing
from preprocessing.sources.parallel import map_files
from preprocessing.sources.record_files import RecordFile, RecordImage, find_images

TFDS_DATA_SET = "TFDS data set"
IMAGE, LABEL = "image", "label"
FILE_NAMES = ("file_name", "image/filename")


def list_tfds(name: str, split: str, tfds_dir: str | None) -> Listing:
    """Has TFDS prepare a data set, and lists the images of the split of that name.

    Classes are in the data set's own order. A key is `class/file name` where the data set tells
    file names, else `class/split_number`, with the number in the order of the records.

    Raises:
        UserError: TFDS does not know the data set, cannot get it, it is not for image
            classification, is not in TFRecord files, has no such split, or is damaged.
    """
    builder = prepare(name, split, tfds_dir)
    classes = [class_name.replace("/", "_") for class_name in builder.info.features[LABEL].names]
    if len(set(classes)) < len(classes):
        raise UserError(f"--source=tfds:{name}: two of its classes have the same name")
    root = os.fspath(builder.data_dir)
    info = builder.info.splits[split]
    paths = [os.fspath(path) for path in info.filepaths]
    name_key = next((key for key in FILE_NAMES if key in builder.info.features), None)
    found = map_files(
        find_images,
        [RecordFile(path, IMAGE, LABEL, name_key) for path in paths],
        info.num_bytes,
        is_remote(root),
        "file",
        f"listing {name}",
    )
    images: list[SourceImage] = []
    for path, expected, records in zip(paths, info.shard_lengths, found, strict=True):
        if len(records) != expected:
            raise UserError(
                f"{path} has {len(records)} records, and {root} says {expected}: remove {root}, and"
                " it is prepared anew"
            )
        relative = path.removeprefix(join(root, ""))
        images += _images(relative, records, classes, split, len(images))
    if not images:
        raise UserError(f"--source=tfds:{name}: there are no images in its split {split!r}")
    keys = unique(image.key for image in images)
    images = [image._replace(key=key) for image, key in zip(images, keys, strict=True)]
    return make_listing(TFDS_DATA_SET, root, classes, images)


def prepare(name: str, split: str, tfds_dir: str | None) -> Any:
    """The builder of the data set, with its files downloaded and prepared.

    Raises:
        UserError: see `list_tfds`.
    """
    import tensorflow_datasets as tfds

    flag = f"--source=tfds:{name}"
    try:
        builder = tfds.builder(name, data_dir=tfds_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        known = str(error).strip().splitlines()[0]
        raise UserError(f"{flag}: TFDS has no such data set ({known})") from None
    features = builder.info.features or {}
    is_fit = {IMAGE, LABEL} <= set(features) and (
        isinstance(features[IMAGE], tfds.features.Image)
        and isinstance(features[LABEL], tfds.features.ClassLabel)
    )
    if not is_fit:
        raise UserError(
            f"{flag}: not a data set for image classification, its features are"
            f" {', '.join(features)}; one with 'image' and 'label' is needed"
        )
    _require_records(builder, flag)
    logging.info(
        f"preparing {name} in {builder.data_dir} (the first time it is downloaded; without a"
        " network that fails after some minutes)"
    )
    # Each retry would be a line of its own; the last one's reason is in the error.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise UserError(f"TFDS needs the package {error.name}: install it with pip") from None
    except Exception as error:  # each of TFDS' many sources fails in a way of its own
        if explain_system_error(error):
            raise
        raise UserError(
            f"TFDS cannot prepare {name}: {_innermost(error)}; check the network, or give"
            " --tfds_dir where the data set is prepared already"
        ) from error
    _require_records(builder, flag)
    if split not in builder.info.splits:
        raise UserError(
            f"{flag} has no split {split!r}, only"
            f" {', '.join(sorted(builder.info.splits))}: name one with --split"
        )
    return builder


def _require_records(builder: Any, flag: str) -> None:
    """Whether the files are TFRecord: before they are made, as far as it is known, and after."""
    file_format = builder.info.file_format
    if file_format is not None and file_format.value != "tfrecord":
        raise UserError(
            f"{flag}: its files in {builder.data_dir} are {file_format.value}, only tfrecord can be"
            " read: give another --tfds_dir, and it is prepared there anew"
        )


def _images(
    path: str, records: Sequence[RecordImage], classes: Sequence[str], split: str, first: int
) -> Iterator[SourceImage]:
    for number, record in enumerate(records, first):
        if not 0 <= record.label < len(classes):
            raise UserError(
                f"{path}: record {number} of split {split!r} has the label {record.label}, which is"
                " no class: take another --split"
            )
        class_name = classes[record.label]
        name = record.name.rpartition("/")[2] or f"{split}_{number:07d}.jpg"
        yield SourceImage(f"{class_name}/{name}", class_name, record.num_bytes, path, record.offset)


def unique(keys: Iterable[str]) -> Iterator[str]:
    """The keys, where the second, third ... of the same get a number that makes no other one."""
    keys = list(keys)
    taken = set(keys)
    counts: collections.Counter[str] = collections.Counter()
    for key in keys:
        counts[key] += 1
        free = key
        while counts[key] > 1:
            stem, ending = os.path.splitext(key)
            free = f"{stem}_{counts[key]}{ending}"
            if free not in taken:
                taken.add(free)
                break
            counts[key] += 1
        yield free


def _innermost(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {error}"
