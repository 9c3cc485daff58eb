"""Data sets that TFDS has prepared: their files, classes and lengths as TFDS tells them.

What TFDS writes is read with its own description (`dataset_info.json`, `features.json`); the code
of the data set is not needed, so one that a user made himself is read just as well.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import logging
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from common import files
from common.errors import UserError, first_line
from training.readers.offsets import fingerprint_of, record_bounds
from training.readers.parsing import parser
from training.shards import Shards

DESCRIPTION = "dataset_info.json"
IMAGE, LABEL = "image", "label"
# What data sets call the feature that holds a file's name.
FILE_NAMES = ("file_name", "image/filename", "filename")

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_RECORDS = re.compile(r"-\d{5}-of-\d{5}$")
_JPEG = b"\xff\xd8\xff"

# Records that are looked at for what their images are, where TFDS does not tell.
MOST_PEEKED = 64


def is_prepared(directory: str) -> bool:
    return files.exists(files.join(directory, DESCRIPTION))


def open_prepared(data_dir: str, dataset_name: str, split: str) -> Shards:
    """Learns where the records of a split lie.

    Args:
        data_dir: TFDS' data directory, or that of one prepared version.
        dataset_name: NAME, NAME/CONFIG or NAME/CONFIG/VERSION below it; empty for itself.
        split: name of the split.

    Raises:
        UserError: the data set is not prepared, is not of images with one label each, not in
            TFRecord files, or not whole.
    """
    directory = _find_version(data_dir, dataset_name) if dataset_name else data_dir
    info = _read_description(directory)
    _require_image_and_label(info, directory)
    if split not in info.splits:
        raise UserError(
            f"{directory} has no split {split!r}, only {', '.join(sorted(info.splits))}: name one"
            " of them, or a part of one as in train[98%:], with --train_split and --eval_split"
        )
    described = info.splits[split]
    names = [str(path).rpartition("/")[2] for path in described.filepaths]
    paths = [files.join(directory, name) for name in names]
    bounds = record_bounds(paths)
    for path, ends, length in zip(paths, bounds, described.shard_lengths, strict=True):
        if len(ends) - 1 != length:
            raise UserError(
                f"shard {path} has {len(ends) - 1:,} records, and {DESCRIPTION} beside it says"
                f" {length:,}: prepare the data set anew"
            )
    label = info.features[LABEL]
    file_name = next((name for name in FILE_NAMES if name in info.features), FILE_NAMES[0])
    shards = Shards(
        paths=tuple(paths),
        bounds=tuple(bounds),
        name=f"{dataset_name}:{split}" if dataset_name else split,
        classes=_class_names(label),
        fingerprint=fingerprint_of(paths, bounds),
        parse=parser(IMAGE, LABEL, file_name, label.num_classes, 0),
    )
    if not shards.num_examples:
        raise UserError(f"split {split!r} of {directory} holds no examples")
    # The encoding is told only where the data set's author chose one; files are stored as they are.
    fused = info.features[IMAGE].encoding_format == "jpeg" or _are_jpeg(shards)
    if not fused:
        logging.info("%s holds images that are not JPEG: they are decoded whole", shards.name)
    return dataclasses.replace(shards, fused=fused)


def _find_version(data_dir: str, name: str) -> str:
    """The directory of the newest prepared version of NAME, NAME/CONFIG, NAME/CONFIG/VERSION."""
    directory = files.join(data_dir, *name.replace(":", "/").strip("/").split("/"))
    while not is_prepared(directory):
        below = _directories(directory)
        versions = [entry for entry in below if _VERSION.fullmatch(entry)]
        versions = [v for v in versions if is_prepared(files.join(directory, v))]
        if versions:
            newest = max(versions, key=lambda v: tuple(map(int, v.split("."))))
            return files.join(directory, newest)
        configs = [
            entry
            for entry in below
            if not _VERSION.fullmatch(entry) and _has_version(files.join(directory, entry))
        ]
        chosen = _default_config(directory)
        if chosen not in configs and len(configs) > 1:
            raise UserError(
                f"{directory} holds several data sets: name one of"
                f" {', '.join(f'--dataset_name={name}/{config}' for config in configs)}"
            )
        if not configs:
            raise UserError(
                f'TFDS has not prepared {name} in {data_dir}: `python -c "import'
                f" tensorflow_datasets as tfds; tfds.builder('{name}',"
                f" data_dir='{data_dir}').download_and_prepare()\"` does it"
            )
        directory = files.join(directory, chosen if chosen in configs else configs[0])
    return directory


def _directories(directory: str) -> list[str]:
    if not files.is_directory(directory):
        return []
    entries = files.list_directory(directory)
    return [e.name for e in entries if e.is_directory and not e.name.startswith(".")]


def _has_version(directory: str) -> bool:
    return any(_VERSION.fullmatch(name) for name in _directories(directory))


def _default_config(directory: str) -> str | None:
    """The configuration that TFDS takes when none is named, as it noted beside them."""
    path = files.join(directory, ".config", "metadata.json")
    if not files.exists(path):
        return None
    found = files.read_json(path)
    return found.get("default_config_name") if isinstance(found, dict) else None


def _read_description(directory: str) -> Any:
    """TFDS' `DatasetInfo` of a directory."""
    with _local_description(directory) as local:
        try:
            import tensorflow_datasets as tfds

            return tfds.builder_from_directory(local).info
        except ImportError as error:
            raise UserError(f"TFDS needs the package {error.name}: install it with pip") from None
        except Exception as error:  # it fails in a way of its own over each file that is damaged
            raise UserError(
                f"TFDS cannot read its description in {directory}: {first_line(error)}"
            ) from None


@contextlib.contextmanager
def _local_description(directory: str) -> Iterator[str]:
    """A local directory with the description, for TFDS has ways of its own into buckets."""
    if not files.is_remote(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="mobilenet-tfds-") as local:
        for entry in files.list_directory(directory):
            if not entry.is_directory and not _RECORDS.search(entry.name):
                content = files.read_bytes(files.join(directory, entry.name))
                files.write_bytes(files.join(local, entry.name), content)
        yield local


def _require_image_and_label(info: Any, directory: str) -> None:
    import tensorflow_datasets as tfds

    features = info.features or {}
    is_fit = {IMAGE, LABEL} <= set(features) and (
        isinstance(features[IMAGE], tfds.features.Image)
        and isinstance(features[LABEL], tfds.features.ClassLabel)
    )
    if not is_fit:
        raise UserError(
            f"{directory} is no data set for image classification: its features are"
            f" {', '.join(features)}, and 'image' and 'label' are needed"
        )
    file_format = info.file_format
    if file_format is not None and file_format.value != "tfrecord":
        raise UserError(
            f"the files in {directory} are {file_format.value}, and only tfrecord can be read:"
            " prepare the data set with tfds.builder(..., file_format='tfrecord')"
            ".download_and_prepare(), in another data_dir"
        )


def _class_names(label: Any) -> tuple[str, ...]:
    names = label.names if label.num_classes else None
    return tuple(names or (str(number) for number in range(label.num_classes or 0)))


def _are_jpeg(shards: Shards) -> bool:
    """Whether images from all over the split are JPEG.

    No op is run: a strategy must be made before the first one.
    """
    import tensorflow as tf

    step = max(1, shards.num_examples // MOST_PEEKED)
    for example in range(0, shards.num_examples, step):
        shard = bisect.bisect_right(shards.first_examples, example) - 1
        payload = shards.read(shard, example - shards.first_examples[shard], 1)[0]
        features = tf.train.Example.FromString(payload).features.feature
        if not features[IMAGE].bytes_list.value[0].startswith(_JPEG):
            return False
    return True
