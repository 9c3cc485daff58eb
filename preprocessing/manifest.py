"""What a data set is: counts, hashes, and the table of its records."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomic_write, read_json, sha256_of_file, write_json
from common.labels import LabelNumbering
from preprocessing import layout

STORED_INPUT = {
    "feature": "image/encoded",
    "format": "JPEG",
    "color": "RGB",
    "dtype": "uint8",
    "range": [0, 255],
}


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One file of records."""

    name: str
    num_examples: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Describes one finished split.

    Attributes:
        split: name of the split.
        num_examples: records in all shards.
        classes: class names in the order of their indices.
        class_list_source: `file`, `imagenet` or `folders`.
        class_list_sha256: SHA-256 of the class file, when there was one.
        labels: numbering of the stored `image/class/label`; the stored `label` is the class index.
        stored_input: what a record's image is.
        examples_per_class: records of each class, in the order of `classes`.
        shards: the files, in order.
        num_listed: images found in the input.
        num_repaired: images that were encoded anew.
        rejected: number of images that are not in, by reason.
        seed: of the permutation that dealt the images to the shards.
        flags: all flags that decide the bytes of the shards.
        versions: of the libraries that decide the bytes of the shards and the table.
        records_sha256: SHA-256 of the table of records.
        plan_sha256: SHA-256 of the header of the plan.
        sha256: SHA-256 of the manifest file.
    """

    split: str
    num_examples: int
    classes: tuple[str, ...]
    class_list_source: str
    class_list_sha256: str | None
    labels: LabelNumbering
    stored_input: dict[str, Any]
    examples_per_class: tuple[int, ...]
    shards: tuple[ShardInfo, ...]
    num_listed: int
    num_repaired: int
    rejected: dict[str, int]
    seed: int
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
    if not os.path.isfile(path):
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
        for name in ("classes", "examples_per_class"):
            value[name] = tuple(value[name])
        return Manifest(**value, sha256=sha256_of_file(path))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is from another version of this project ({error}): build the split anew"
        ) from None


def save_records(data_dir: str, split: str, columns: dict[str, Any]) -> str:
    """Writes the table of records, a row per listed image, and returns its SHA-256.

    Columns: `key` (folder/file), `sha256` (of the source file), `label` (class index), `class`,
    `shard` (number), `offset` and `length` of the framed record in bytes (-1 and 0 when rejected),
    `width`, `height`, `action` (verbatim, repaired or rejected), `reason`. Rows stand in the order
    of the shards.
    """
    import pyarrow as pa
    import pyarrow.parquet

    kinds = {np.dtype(np.int32): pa.int32(), np.dtype(np.int64): pa.int64()}
    table = pa.table(
        {
            name: pa.array(values, kinds[values.dtype])
            if isinstance(values, np.ndarray)
            else pa.array(values, pa.string())
            for name, values in columns.items()
        }
    )
    path = layout.split_path(data_dir, split, layout.RECORDS)
    with atomic_write(path) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")
    return sha256_of_file(path)


def load_records(
    data_dir: str, split: str, columns: list[str] | None = None
) -> dict[str, np.ndarray | list[str]]:
    """Reads the table of records (see `save_records`): numbers as arrays, text as lists.

    Raises:
        UserError: the table is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet

    path = layout.split_path(data_dir, split, layout.RECORDS)
    try:
        table = pyarrow.parquet.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return {
        name: column.to_pylist() if pa.types.is_string(column.type) else column.to_numpy()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def shard_offsets(data_dir: str, split: str) -> list[np.ndarray]:
    """Where each record of each shard begins: one int64 array of byte offsets per shard."""
    records = load_records(data_dir, split, ["shard", "offset"])
    stored = records["offset"] >= 0
    shards, offsets = records["shard"][stored], records["offset"][stored]
    num_shards = len(load_manifest(data_dir, split).shards)
    bounds = np.searchsorted(shards, np.arange(num_shards + 1))
    return [offsets[start:end] for start, end in itertools.pairwise(bounds)]


def _hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
