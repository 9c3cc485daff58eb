"""The table of records: one row for each image that was listed, as Parquet.

Workers write the rows of a shard beside it (its row file), together with the shard's size and
hashes; the table of a split is these rows one after the other, a row group to a shard.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import UserError
from common.files import atomic_write, read_bytes, write_bytes
from preprocessing import layout
from preprocessing.shard_digest import Span

if TYPE_CHECKING:
    import pyarrow as pa

_SUMMARY = b"shard"

# More on the reason of an action; in row files only.
DETAIL = "detail"


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """A finished shard: bytes of its file, and its hashes (see `shard_digest`)."""

    num_bytes: int
    digest: str
    crc32c: str


@functools.cache
def schema() -> pa.Schema:
    """Columns of the table.

    `key` is `class/file`, the same wherever the image lies, and `sha256` is that of the image as it
    lies there, "" where it cannot be read. `label` is the class index. `offset` and `length` are
    those of the framed record in shard number `shard`, `jpeg_offset` and `jpeg_length` those of the
    stored image in the same file, in bytes; of a rejected image the offsets are -1 and the lengths
    0. `action` is verbatim, repaired, resized or rejected, for `reason`. `source` is the file that
    the image came from, and `source_offset` its first byte there, -1 where the file is the image.
    """
    import pyarrow as pa

    text, small, large = pa.string(), pa.int32(), pa.int64()
    return pa.schema(
        {
            "key": text,
            "sha256": text,
            "label": small,
            "class": text,
            "shard": small,
            "offset": large,
            "length": small,
            "jpeg_offset": large,
            "jpeg_length": small,
            "width": small,
            "height": small,
            "action": text,
            "reason": text,
            "source": text,
            "source_offset": large,
        }
    )


def write_rows(path: str, columns: dict[str, Sequence[Any]], summary: ShardSummary) -> None:
    """Writes the row file of a shard."""
    import pyarrow as pa
    import pyarrow.parquet

    summary_json = json.dumps(dataclasses.asdict(summary), sort_keys=True)
    with_detail = schema().append(pa.field(DETAIL, pa.string()))
    table = pa.table(columns, with_detail.with_metadata({_SUMMARY: summary_json}))
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, compression="zstd")
    write_bytes(path, out.getvalue())


def read_rows(path: str) -> tuple[pa.Table, ShardSummary] | None:
    """Reads the row file of a shard; None if there is no whole one."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(read_bytes(path)))
        value = table.schema.metadata[_SUMMARY]
        return table.replace_schema_metadata(None), ShardSummary(**json.loads(value))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def save_records(data_dir: str, split: str, shards: Iterable[pa.Table]) -> None:
    """Writes the table from the rows of its shards, which are taken one at a time."""
    import pyarrow.parquet

    path = layout.split_path(data_dir, split, layout.RECORDS)
    with (
        atomic_write(path) as file,
        pyarrow.parquet.ParquetWriter(file, schema(), compression="zstd") as writer,
    ):
        for rows in shards:
            writer.write_table(rows.select(schema().names))


def load_table(data_dir: str, split: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the table, or some columns of it (see `schema`).

    Raises:
        UserError: it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet

    path = layout.split_path(data_dir, split, layout.RECORDS)
    try:
        return pyarrow.parquet.read_table(io.BytesIO(read_bytes(path)), columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def load_records(
    data_dir: str, split: str, columns: Sequence[str] | None = None
) -> dict[str, np.ndarray | list[str]]:
    """As `load_table`: numbers as arrays, text as lists."""
    import pyarrow as pa

    table = load_table(data_dir, split, columns)
    return {
        name: column.to_pylist() if pa.types.is_string(column.type) else column.to_numpy()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def spans_of(rows: pa.Table) -> list[Span]:
    """Where the records of some rows lie, without the rejected ones."""
    columns = [rows.column(name).to_numpy() for name in Span._fields]
    stored = columns[0] >= 0
    return [Span(*values) for values in zip(*(c[stored].tolist() for c in columns), strict=True)]
