"""What the page about a data set knows of its pictures: a few numbers each, read in batches.

A million rows are tens of megabytes here, since text stays in the file until a row is to be shown.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UserError
from common.files import is_remote, read_bytes
from preprocessing import images, layout
from preprocessing.manifest import Manifest, load_manifest

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERS = {
    "label": np.int32,
    "shard": np.int32,
    "jpeg_offset": np.int64,
    "jpeg_length": np.int32,
    "width": np.int32,
    "height": np.int32,
}
_BATCH_ROWS = 1 << 16
_HEX_DIGITS = 16


@dataclasses.dataclass(frozen=True)
class Rows:
    """The table of records as arrays, an element for each picture that was listed.

    Attributes:
        label: class index.
        shard: number of the shard.
        jpeg_offset: first byte of the stored picture in its shard; -1 if it was rejected.
        jpeg_length: bytes of the stored picture; 0 if it was rejected.
        width: pixels per row.
        height: rows.
        content: the first 64 bits of the SHA-256 of the source; 0 if it could not be read. By
            chance two of a million pictures share them once in 40 million data sets.
        outcome: position of what became of it in `outcomes`.
        outcomes: pairs of action and reason.
        stored: whether it is in the shards.
    """

    label: np.ndarray
    shard: np.ndarray
    jpeg_offset: np.ndarray
    jpeg_length: np.ndarray
    width: np.ndarray
    height: np.ndarray
    content: np.ndarray
    outcome: np.ndarray
    outcomes: tuple[tuple[str, str], ...]
    stored: np.ndarray


@dataclasses.dataclass(frozen=True)
class Split:
    """A finished split: its manifest and its rows."""

    manifest: Manifest
    rows: Rows

    @property
    def name(self) -> str:
        return self.manifest.split


def load_split(data_dir: str, name: str) -> Split:
    """Reads manifest and rows of a split.

    Raises:
        UserError: one of them is missing or damaged, or they do not belong together.
    """
    manifest = load_manifest(data_dir, name)
    rows = read_rows(data_dir, name)
    fits = (
        len(rows.label) == manifest.num_listed
        and np.count_nonzero(rows.stored) == manifest.num_examples
        and rows.label.max(initial=0) < len(manifest.classes)
        and rows.shard.max(initial=0) < len(manifest.shards)
    )
    if not fits:
        raise UserError(
            f"{layout.split_path(data_dir, name, layout.RECORDS)} is not the table of the manifest"
            f" beside it: `python -m preprocessing.verify --data_dir={data_dir} --split={name}`"
            " names what is wrong"
        )
    return Split(manifest, rows)


def read_rows(data_dir: str, split: str) -> Rows:
    """Reads the numbers of the table of records.

    Raises:
        UserError: it is missing or damaged.
    """
    arrays = {name: [np.zeros(0, kind)] for name, kind in _NUMBERS.items()}
    contents, outcomes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
    known: dict[tuple[str, str], int] = {}
    for batch in _batches(data_dir, split, [*_NUMBERS, "sha256", "action", "reason"]):
        for name, kind in _NUMBERS.items():
            arrays[name].append(batch.column(name).to_numpy(zero_copy_only=False).astype(kind))
        contents.append(_first_bits(batch.column("sha256")))
        outcomes.append(_outcome_codes(batch, known))
    outcome = np.concatenate(outcomes)
    rejected = [code for (action, _), code in known.items() if action == images.REJECTED]
    return Rows(
        **{name: np.concatenate(parts) for name, parts in arrays.items()},
        content=np.concatenate(contents),
        outcome=outcome,
        outcomes=tuple(known),
        stored=~np.isin(outcome, rejected),
    )


def read_keys(data_dir: str, split: str, wanted: Sequence[int]) -> dict[int, str]:
    """The keys of some rows of the table, by row number."""
    rows = np.unique(np.asarray(wanted, np.int64))
    found: dict[int, str] = {}
    start = 0
    for batch in _batches(data_dir, split, ["key"]) if len(rows) else ():
        end = start + batch.num_rows
        inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)]
        keys = batch.column("key").take(_to_arrow(inside - start)).to_pylist()
        found.update(zip(inside.tolist(), keys, strict=True))
        start = end
    return found


def _batches(data_dir: str, split: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet

    path = layout.split_path(data_dir, split, layout.RECORDS)
    try:
        # A bucket gives the whole table sooner than a range for each column of each shard.
        source = io.BytesIO(read_bytes(path)) if is_remote(path) else path
        with pyarrow.parquet.ParquetFile(source) as file:
            missing = sorted(set(columns) - set(file.schema_arrow.names))
            if missing:
                raise UserError(
                    f"{path} has no column {missing[0]!r}: it is from another version of this"
                    " project; build the split anew"
                )
            yield from file.iter_batches(_BATCH_ROWS, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _to_arrow(values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(values)


def _first_bits(sha256: pa.Array) -> np.ndarray:
    """The first 64 bits of hexadecimal digests as numbers; 0 for an empty text."""
    import pyarrow.compute as pc

    if not len(sha256):
        return np.zeros(0, np.uint64)
    # Each text made 16 digits long, they lie in memory one after the other.
    text = pc.utf8_slice_codeunits(pc.fill_null(sha256, ""), 0, _HEX_DIGITS)
    text = pc.utf8_rpad(text, _HEX_DIGITS, "0")
    start = text.offset * _HEX_DIGITS
    digits = np.frombuffer(text.buffers()[2], np.uint8)[start : start + len(text) * _HEX_DIGITS]
    halves = np.where(digits > ord("9"), digits - ord("a") + 10, digits - ord("0")).astype(np.uint8)
    pairs = halves[0::2] << 4 | halves[1::2]
    return pairs.view(">u8").astype(np.uint64)


def _outcome_codes(batch: pa.RecordBatch, known: dict[tuple[str, str], int]) -> np.ndarray:
    """The position of each row's action and reason in `known`, which grows as new ones come."""
    import pyarrow.compute as pc

    action = batch.column("action").dictionary_encode()
    reason = pc.fill_null(batch.column("reason"), "").dictionary_encode()
    actions, reasons = action.dictionary.to_pylist(), reason.dictionary.to_pylist()
    pairs = action.indices.to_numpy() * np.int64(len(reasons)) + reason.indices.to_numpy()
    found, inverse = np.unique(pairs, return_inverse=True)
    codes = [
        known.setdefault((actions[pair // len(reasons)], reasons[pair % len(reasons)]), len(known))
        for pair in found.tolist()
    ]
    return np.array(codes, np.int32)[inverse]
