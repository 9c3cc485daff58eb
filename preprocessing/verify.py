"""`python -m preprocessing.verify`: proves a split whole, or names what is wrong with it.

The manifest is held against its own hash, every file against the manifest, and the manifest against
the records table and the plan. Where a shard's bytes are not right, the table tells which record,
and so which source image, is damaged.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
from collections.abc import Iterator

import numpy as np

from common.command import flag, run
from common.errors import UserError
from common.files import sha256_of_file
from preprocessing import images, layout
from preprocessing.examples import stored_jpeg
from preprocessing.manifest import Manifest, ShardInfo, load_manifest, load_records
from preprocessing.plan import load_plan
from preprocessing.tfrecord import payload_of


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
    """Flags of the command."""

    data_dir: str = flag(help="directory of the shards: --output_dir of the build")
    split: str = flag("train", help="name of the split")
    deep: bool = flag(False, help="also decode every image")


def verify(config: VerifyConfig) -> None:
    """Proves a split whole: sizes, hashes and counts; every fault is named."""
    layout.require_split_name(config.split)
    manifest = load_manifest(config.data_dir, config.split)
    faults = []
    for fault in find_faults(config.data_dir, manifest, config.deep):
        logging.info(f"fault: {fault}")
        faults.append(fault)
    if faults:
        path = layout.split_path(config.data_dir, config.split, layout.MANIFEST)
        raise UserError(
            f"split {config.split!r} in {config.data_dir} is not whole: {faults[0]}"
            f"{f' (and {len(faults) - 1} more faults)' if len(faults) > 1 else ''}; to mend it,"
            f" delete {path} and run the same preprocessing.build_dataset again"
        )
    size = sum(shard.num_bytes for shard in manifest.shards)
    logging.info(
        f"split {config.split!r} in {config.data_dir} is whole: {manifest.num_examples} examples in"
        f" {len(manifest.shards)} shards, {size / 2**20:.1f} MiB, hashes"
        f"{' and images' if config.deep else ''} as they should be"
    )


def find_faults(data_dir: str, manifest: Manifest, deep: bool = False) -> Iterator[str]:
    """Yields a line for each thing that is not as the manifest says, in the order of the shards."""
    yield from _faults_of_plan(data_dir, manifest)
    path = layout.split_path(data_dir, manifest.split, layout.RECORDS)
    records = None
    if not os.path.isfile(path):
        yield f"{path} is missing"
    elif sha256_of_file(path) != manifest.records_sha256:
        yield f"{path} is damaged or was edited: its SHA-256 is not the manifest's"
    else:
        records = load_records(data_dir, manifest.split)
    if records is not None:
        yield from _faults_of_counts(manifest, records)
    by_hash = {shard.sha256: shard.name for shard in manifest.shards}
    for index, shard in enumerate(manifest.shards):
        rows = _ShardRows(records, index) if records is not None else None
        yield from _faults_of_shard(data_dir, shard, rows, by_hash, deep)
    known = {shard.name for shard in manifest.shards}
    for name in layout.find_shards(data_dir, manifest.split):
        if name not in known:
            yield (
                f"{os.path.join(data_dir, name)} is not in the manifest, but readers would take it"
                " for a shard: delete it"
            )


class _ShardRows:
    """The rows of the records table that belong to one shard and are stored in it, in order."""

    def __init__(self, records: dict, index: int):
        start, end = np.searchsorted(records["shard"], (index, index + 1))
        stored = np.flatnonzero(records["offset"][start:end] >= 0) + start
        self.keys = [records["key"][row] for row in stored]
        self.offsets = records["offset"][stored].tolist()
        self.lengths = records["length"][stored].tolist()

    def name(self, number: int) -> str:
        return f"record {number} ({self.keys[number]})"


def _faults_of_plan(data_dir: str, manifest: Manifest) -> Iterator[str]:
    header = layout.split_path(data_dir, manifest.split, layout.PLAN)
    body = layout.split_path(data_dir, manifest.split, layout.PLAN_BODY)
    for path in (header, body):
        if not os.path.isfile(path):
            yield f"{path} is missing"
            return
    if sha256_of_file(header) != manifest.plan_sha256:
        yield f"{header} is damaged or was edited: its SHA-256 is not the manifest's"
        return
    plan = load_plan(data_dir, manifest.split)
    if sha256_of_file(body) != plan.body_sha256:
        yield f"{body} is damaged or was edited: its SHA-256 is not the one in {layout.PLAN}"
    for name, planned, told in (
        ("flags", plan.flags, manifest.flags),
        ("seed", plan.flags["seed"], manifest.seed),
        ("classes", plan.classes, manifest.classes),
        ("num_listed", sum(plan.num_images), manifest.num_listed),
    ):
        if planned != told:
            yield f"the manifest was edited: its {name} are not those of {layout.PLAN}"


def _faults_of_counts(manifest: Manifest, records: dict) -> Iterator[str]:
    stored = records["offset"] >= 0
    per_class = np.bincount(records["label"][stored], minlength=len(manifest.classes))
    actions = collections.Counter(records["action"])
    reasons = collections.Counter(
        reason
        for action, reason in zip(records["action"], records["reason"], strict=True)
        if action == images.REJECTED
    )
    per_shard = np.bincount(records["shard"][stored], minlength=len(manifest.shards))
    sizes = np.bincount(
        records["shard"], weights=records["length"], minlength=len(manifest.shards)
    ).astype(np.int64)
    for name, counted, told in (
        ("num_listed", len(stored), manifest.num_listed),
        ("num_examples", int(stored.sum()), manifest.num_examples),
        ("num_repaired", actions[images.REPAIRED], manifest.num_repaired),
        ("rejected", dict(reasons), manifest.rejected),
        ("examples_per_class", per_class.tolist(), list(manifest.examples_per_class)),
        ("shards", per_shard.tolist(), [shard.num_examples for shard in manifest.shards]),
        ("sizes of shards", sizes.tolist(), [shard.num_bytes for shard in manifest.shards]),
    ):
        if counted != told:
            yield f"the manifest's {name} are not what {layout.RECORDS} counts: one was edited"


def _faults_of_shard(
    data_dir: str, shard: ShardInfo, rows: _ShardRows | None, by_hash: dict[str, str], deep: bool
) -> Iterator[str]:
    path = os.path.join(data_dir, shard.name)
    if not os.path.isfile(path):
        yield f"{path} is missing ({shard.num_examples} records)"
        return
    size = os.path.getsize(path)
    found = sha256_of_file(path)
    if found in by_hash and by_hash[found] != shard.name:
        yield f"{path} holds the bytes of {by_hash[found]}: they were swapped or copied"
        return
    if size < shard.num_bytes:
        lost = _first_lost(rows, size)
        yield f"{path} is cut: {size} of {shard.num_bytes} bytes{lost}"
    elif size > shard.num_bytes:
        yield f"{path} is too long: {size} bytes instead of {shard.num_bytes}"
    if found != shard.sha256 and rows is not None:
        damaged = list(_damaged_records(path, rows, size))
        for number in damaged:
            yield f"{path} is damaged in {rows.name(number)}"
        if not damaged and size == shard.num_bytes:
            yield (
                f"{path} is not the file of the manifest, though each record's checksum is right:"
                " one of them was replaced or edited"
            )
    elif found != shard.sha256 and size == shard.num_bytes:
        yield f"{path} is damaged: its SHA-256 is not the manifest's"
    if deep and rows is not None and found == shard.sha256:
        yield from _undecodable(path, rows)


def _first_lost(rows: _ShardRows | None, size: int) -> str:
    if rows is None:
        return ""
    ends = map(sum, zip(rows.offsets, rows.lengths, strict=True))
    number = next((number for number, end in enumerate(ends) if end > size), None)
    return "" if number is None else f", from {rows.name(number)} on"


def _damaged_records(path: str, rows: _ShardRows, size: int) -> Iterator[int]:
    """Numbers of the records inside the file whose checksums or places are wrong."""
    with open(path, "rb") as file:
        for number, (offset, length) in enumerate(zip(rows.offsets, rows.lengths, strict=True)):
            if offset + length > size:
                return
            file.seek(offset)
            if payload_of(file.read(length)) is None:
                yield number


def _undecodable(path: str, rows: _ShardRows) -> Iterator[str]:
    with open(path, "rb") as file:
        for number, length in enumerate(rows.lengths):
            reason = images.decode_error(stored_jpeg(payload_of(file.read(length))))
            if reason:
                yield f"{path}: the image of {rows.name(number)} cannot be decoded: {reason}"


if __name__ == "__main__":
    run(verify, VerifyConfig)
