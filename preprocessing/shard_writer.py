"""One whole shard: read its images in order, inspect, frame, hash, rename, then its row file.

A shard's bytes depend on the plan and the images alone. It is written under a temporary name and
renamed when it is whole, so doing it twice, or in two places at once, is harmless.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable

from common.command import explain_system_error
from common.errors import UserError
from common.files import atomic_write, read_json, sha256_of_bytes, sha256_of_file, write_json
from preprocessing import images, layout
from preprocessing.examples import encode_example
from preprocessing.plan import Plan, PlannedImage, read_shard
from preprocessing.tfrecord import frame


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of one planned image.

    Attributes:
        sha256: of the source file's bytes; "" if they could not be read.
        offset: where the record begins in the shard, in bytes; -1 if the image was rejected.
        length: of the record with its framing, in bytes.
        width: pixels per row of the stored image; 0 when not known.
        height: rows of the stored image; 0 when not known.
        action: `verbatim`, `repaired` or `rejected`.
        reason: why it was repaired or rejected.
        detail: more on the reason.
    """

    sha256: str
    offset: int
    length: int
    width: int
    height: int
    action: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """A finished shard: size and SHA-256 of its file, and a row for each planned image."""

    num_bytes: int
    sha256: str
    rows: tuple[Row, ...]


def write_shard(input_dir: str, data_dir: str, plan: Plan, index: int) -> ShardResult:
    """Writes shard `index` of `plan` and its row file.

    Raises:
        UserError: it cannot be written; the temporary file is gone.
    """
    path = os.path.join(data_dir, plan.shard_name(index))
    try:
        result = _write_records(path, input_dir, plan, read_shard(data_dir, plan, index))
        write_json(layout.row_file(data_dir, plan.split, index), _to_columns(result))
    except OSError as error:
        error.filename = error.filename or path
        reason = explain_system_error(error) or f"cannot write {path}: {error.strerror}"
        raise UserError(f"{reason} (finished shards are kept)") from error
    return result


def load_result(data_dir: str, plan: Plan, index: int) -> ShardResult | None:
    """What the row file of a shard says; None if there is no whole one."""
    try:
        value = read_json(layout.row_file(data_dir, plan.split, index))
        columns = value["columns"]
        rows = tuple(Row(*row) for row in zip(*(columns[name] for name in _COLUMNS), strict=True))
        result = ShardResult(value["num_bytes"], value["sha256"], rows)
    except (UserError, KeyError, TypeError, ValueError):
        return None
    return result if len(rows) == plan.num_images[index] else None


def is_whole(data_dir: str, plan: Plan, index: int) -> bool:
    """Whether a shard need not be written again: its file is what its row file says, by SHA-256.

    One with files that could not be read is not: that lies outside them and may be mended by now.
    """
    result = load_result(data_dir, plan, index)
    if result is None or any(row.reason == images.UNREADABLE for row in result.rows):
        return False
    path = os.path.join(data_dir, plan.shard_name(index))
    if not os.path.isfile(path) or os.path.getsize(path) != result.num_bytes:
        return False
    return sha256_of_file(path) == result.sha256


_COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def _to_columns(result: ShardResult) -> dict:
    columns = {name: [getattr(row, name) for row in result.rows] for name in _COLUMNS}
    return {"num_bytes": result.num_bytes, "sha256": result.sha256, "columns": columns}


def _write_records(
    path: str, input_dir: str, plan: Plan, planned: Iterable[PlannedImage]
) -> ShardResult:
    digest = hashlib.sha256()
    rows = []
    position = 0
    with atomic_write(path) as file:
        for image in planned:
            sha256, found = _look_at(os.path.join(input_dir, image.key), plan.flags["max_pixels"])
            length = 0
            if found.action != images.REJECTED:
                for part in _record(image, found, plan.classes[image.class_index]):
                    file.write(part)
                    digest.update(part)
                    length += len(part)
            rows.append(
                Row(
                    sha256,
                    position if length else -1,
                    length,
                    found.width,
                    found.height,
                    found.action,
                    found.reason,
                    found.detail,
                )
            )
            position += length
    return ShardResult(position, digest.hexdigest(), tuple(rows))


def _look_at(path: str, max_pixels: int) -> tuple[str, images.Inspection]:
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.readall()
    except OSError as error:
        return "", images.reject(images.UNREADABLE, error.strerror)
    return sha256_of_bytes(content), images.inspect(content, max_pixels)


def _record(image: PlannedImage, found: images.Inspection, class_name: str) -> tuple[bytes, ...]:
    """The parts of a framed record; the image is one of them, not a copy."""
    parts = encode_example(
        found.content,
        width=found.width,
        height=found.height,
        class_index=image.class_index,
        class_name=class_name,
        file_name=image.key.rpartition("/")[2],
    )
    header, footer = frame(parts)
    return header, *parts, footer
