"""What a finished split is: its counts, its hashes, and what decided them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from typing import Any, NamedTuple

import numpy as np

from common.errors import UserError
from common.files import exists, read_json, sha256_of_file, write_json
from common.labels import LabelNumbering
from preprocessing import layout
from preprocessing.records import load_table

STORED_INPUT = {
    "feature": "image/encoded",
    "format": "JPEG",
    "color": "RGB",
    "dtype": "uint8",
    "range": [0, 255],
}


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One file of records.

    Attributes:
        name: of the file.
        num_examples: records in it.
        num_bytes: of the file.
        digest: SHA-256 that vouches for its bytes (see `shard_digest`).
        crc32c: of the file, as Cloud Storage tells it.
    """

    name: str
    num_examples: int
    num_bytes: int
    digest: str
    crc32c: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Describes one finished split.

    Attributes:
        split: name of the split.
        num_examples: records in all shards.
        classes: class names in the order of their indices.
        class_texts: what each class is called in plain words.
        class_list_source: `file`, `imagenet` or `folders`.
        class_list_sha256: SHA-256 of the class file, when there was one.
        labels: numbering of the stored `image/class/label`; the stored `label` is the class index.
        stored_input: what a record's image is.
        examples_per_class: records of each class, in the order of `classes`.
        shards: the files, in order.
        num_listed: images found in the source.
        num_repaired: images that were encoded anew, since decoders would not read them as they are.
        num_resized: images that were made smaller.
        num_duplicates: stored images whose bytes are those of another one before them.
        rejected: number of images that are not in, by reason.
        seed: of the permutation that dealt the images to the shards.
        source: what the images were listed from: its kind, and its name without folders.
        flags: all flags that decide the bytes of the shards.
        versions: of the libraries that decide the bytes of the shards and the table.
        records_sha256: SHA-256 of the table of records.
        plan_sha256: SHA-256 of the header of the plan.
        sha256: SHA-256 of the manifest file.
    """

    split: str
    num_examples: int
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    class_list_source: str
    class_list_sha256: str | None
    labels: LabelNumbering
    stored_input: dict[str, Any]
    examples_per_class: tuple[int, ...]
    shards: tuple[ShardInfo, ...]
    num_listed: int
    num_repaired: int
    num_resized: int
    num_duplicates: int
    rejected: dict[str, int]
    seed: int
    source: dict[str, str]
    flags: dict[str, Any]
    versions: dict[str, str]
    records_sha256: str
    plan_sha256: str
    sha256: str = ""


def save_manifest(data_dir: str, manifest: Manifest) -> None:
    """Writes the manifest with a hash of itself, so that an edited one is noticed."""
    value = dataclasses.asdict(manifest)
    del value["sha256"]
    value["self_sha256"] = _hash_of(value)
    write_json(layout.split_path(data_dir, manifest.split, layout.MANIFEST), value)


def load_manifest(data_dir: str, split: str) -> Manifest:
    """Reads the manifest of a finished split.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = layout.split_path(data_dir, split, layout.MANIFEST)
    if not exists(path):
        raise UserError(
            f"{path} does not exist: there is no finished split {split!r} in {data_dir};"
            f" `python -m preprocessing.build_dataset --output_dir={data_dir} --split={split} ...`"
            " makes it"
        )
    value = read_json(path)
    if not isinstance(value, dict) or value.pop("self_sha256", None) != _hash_of(value):
        raise UserError(
            f"{path} is damaged or was edited: its content does not fit its self_sha256;"
            " delete it and run the same preprocessing.build_dataset again"
        )
    try:
        value["labels"] = LabelNumbering(**value["labels"])
        value["shards"] = tuple(ShardInfo(**shard) for shard in value["shards"])
        for name in ("classes", "class_texts", "examples_per_class"):
            value[name] = tuple(value[name])
        return Manifest(**value, sha256=sha256_of_file(path))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is from another version of this project ({error}): build the split anew"
        ) from None


class ShardPlaces(NamedTuple):
    """Where the records of a shard lie, an array item for each; offsets in bytes of the file.

    Attributes:
        offset: of the framed record.
        jpeg_offset: of the image in it.
        jpeg_length: bytes of the image.
        label: its class index.
    """

    offset: np.ndarray
    jpeg_offset: np.ndarray
    jpeg_length: np.ndarray
    label: np.ndarray


def shard_places(data_dir: str, split: str) -> list[ShardPlaces]:
    """Where each record of each shard lies, by the table of records."""
    table = load_table(data_dir, split, ["shard", *ShardPlaces._fields])
    columns = [table.column(name).to_numpy() for name in ("shard", *ShardPlaces._fields)]
    stored = columns[1] >= 0
    shards, *columns = (column[stored] for column in columns)
    num_shards = len(load_manifest(data_dir, split).shards)
    bounds = np.searchsorted(shards, np.arange(num_shards + 1))
    return [
        ShardPlaces(*(column[start:end] for column in columns))
        for start, end in itertools.pairwise(bounds)
    ]


def shard_offsets(data_dir: str, split: str) -> list[np.ndarray]:
    """Where each record of each shard begins: one int64 array of byte offsets per shard."""
    return [places.offset for places in shard_places(data_dir, split)]


def _hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
