"""`python -m preprocessing.verify`: proves a split whole, or names what is wrong with it.

The manifest is held against its own hash, every file against the manifest, and the manifest against
the records table and the plan. Where a shard's bytes are not right, the table tells which record,
and so which source image, is damaged.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from common.command import flag, run
from common.errors import UserError
from common.files import exists, join, sha256_of_file
from common.progress import Progress
from preprocessing import images, layout
from preprocessing.manifest import Manifest, load_manifest
from preprocessing.plan import load_plan
from preprocessing.records import load_table
from preprocessing.verify_shard import ShardRows, faults_of_shard

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
    """Flags of the command."""

    data_dir: str = flag(help="directory of the shards: --output_dir of the build")
    split: str = flag("train", help="name of the split")
    deep: bool = flag(
        False, help="also decode every image, which takes about ten times as long as hashing them"
    )


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
    table = None
    if not exists(path):
        yield f"{path} is missing"
    elif sha256_of_file(path) != manifest.records_sha256:
        yield f"{path} is damaged or was edited: its SHA-256 is not the manifest's"
    else:
        table = load_table(data_dir, manifest.split)
        yield from _faults_of_counts(manifest, table)
    yield from _faults_of_shards(data_dir, manifest, table, deep)
    known = {shard.name for shard in manifest.shards}
    for name in sorted(layout.find_shards(data_dir, manifest.split).keys() - known):
        yield (
            f"{join(data_dir, name)} is not in the manifest, but readers would take it for a shard:"
            " delete it"
        )


def _faults_of_shards(
    data_dir: str, manifest: Manifest, table: pa.Table | None, deep: bool
) -> Iterator[str]:
    """Looks at several shards at once: hashing, reading and decoding leave the interpreter free."""
    names = {shard.crc32c: shard.name for shard in manifest.shards}
    bounds: np.ndarray | None = None
    if table is not None:
        bounds = np.searchsorted(table["shard"].to_numpy(), range(len(manifest.shards) + 1))

    def look_at(index: int) -> list[str]:
        rows = None
        if table is not None:
            rows = ShardRows.of_table(table.slice(bounds[index], bounds[index + 1] - bounds[index]))
        return list(faults_of_shard(data_dir, manifest.shards[index], rows, names, deep))

    num_bytes = sum(shard.num_bytes for shard in manifest.shards)
    with (
        Progress(num_bytes, "B", f"verifying {manifest.split}", unit_scale=True) as progress,
        concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool,
    ):
        found = pool.map(look_at, range(len(manifest.shards)))
        for shard, faults in zip(manifest.shards, found, strict=True):
            progress.update(shard.num_bytes)
            yield from faults


def _faults_of_plan(data_dir: str, manifest: Manifest) -> Iterator[str]:
    header = layout.split_path(data_dir, manifest.split, layout.PLAN)
    body = layout.split_path(data_dir, manifest.split, layout.PLAN_BODY)
    for path in (header, body):
        if not exists(path):
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


def _faults_of_counts(manifest: Manifest, table: pa.Table) -> Iterator[str]:
    labels, shards, offsets, lengths = (
        table.column(name).to_numpy() for name in ("label", "shard", "offset", "length")
    )
    stored = offsets >= 0
    ends = collections.Counter(
        zip(table["action"].to_pylist(), table["reason"].to_pylist(), strict=True)
    )
    rejected = {reason: n for (action, reason), n in ends.items() if action == images.REJECTED}
    num_of = {
        action: sum(n for (end, _), n in ends.items() if end == action)
        for action in (images.REPAIRED, images.RESIZED)
    }
    num_shards = len(manifest.shards)
    sizes = np.bincount(shards, weights=lengths, minlength=num_shards).astype(np.int64)
    counts = np.bincount(shards[stored], minlength=num_shards)
    per_class = np.bincount(labels[stored], minlength=len(manifest.classes))
    for name, counted, told in (
        ("num_listed", len(stored), manifest.num_listed),
        ("num_examples", int(stored.sum()), manifest.num_examples),
        ("num_repaired", num_of[images.REPAIRED], manifest.num_repaired),
        ("num_resized", num_of[images.RESIZED], manifest.num_resized),
        ("rejected", rejected, manifest.rejected),
        ("examples_per_class", per_class.tolist(), list(manifest.examples_per_class)),
        ("shards", counts.tolist(), [shard.num_examples for shard in manifest.shards]),
        ("sizes of shards", sizes.tolist(), [shard.num_bytes for shard in manifest.shards]),
    ):
        if counted != told:
            yield f"the manifest's {name} are not what {layout.RECORDS} counts: one was edited"


if __name__ == "__main__":
    run(verify, VerifyConfig)
