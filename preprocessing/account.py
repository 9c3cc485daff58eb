"""What was written, counted: the records table, the two lists of odd images, the manifest."""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import json
import logging
import os
from collections.abc import Iterable

import numpy as np

from common.errors import UserError
from common.files import sha256_of_file, write_text
from common.labels import LabelNumbering
from preprocessing import images, layout
from preprocessing.examples import LABEL_OFFSET
from preprocessing.manifest import STORED_INPUT, Manifest, ShardInfo, save_manifest, save_records
from preprocessing.plan import Plan, read_shard
from preprocessing.shard_writer import ShardResult, load_result


def account(data_dir: str, plan: Plan, max_rejected_fraction: float) -> Manifest:
    """Gathers the row files of all shards; the manifest comes last.

    Raises:
        UserError: too many images were rejected, or all of them; then there is no manifest.
    """
    columns: dict[str, list] = collections.defaultdict(list)
    shards, odd = [], []
    for index in range(plan.num_shards):
        result = load_result(data_dir, plan, index)
        if result is None:
            path = layout.row_file(data_dir, plan.split, index)
            raise UserError(f"{path} is missing or damaged: run the same command again")
        _add_rows(columns, odd, data_dir, plan, index, result)
        stored = sum(row.length > 0 for row in result.rows)
        shards.append(ShardInfo(plan.shard_name(index), stored, result.num_bytes, result.sha256))
    odd.sort(key=lambda row: row["key"])
    for action, name in ((images.REJECTED, layout.REJECTED), (images.REPAIRED, layout.REPAIRED)):
        _write_lines(data_dir, plan.split, name, (row for row in odd if row["action"] == action))

    counts = collections.Counter(columns["action"])
    labels = np.array(columns["label"], np.int64)
    stored = np.array(columns["length"], np.int64) > 0
    manifest = Manifest(
        split=plan.split,
        num_examples=int(stored.sum()),
        classes=plan.classes,
        class_list_source=plan.class_list_source,
        class_list_sha256=plan.class_list_sha256,
        labels=LabelNumbering(len(plan.classes), LABEL_OFFSET),
        stored_input=STORED_INPUT,
        examples_per_class=tuple(np.bincount(labels[stored], minlength=len(plan.classes)).tolist()),
        shards=tuple(shards),
        num_listed=len(stored),
        num_repaired=counts[images.REPAIRED],
        rejected=_count_by_reason(columns, images.REJECTED),
        seed=plan.flags["seed"],
        flags=plan.flags,
        versions={**plan.versions, "pyarrow": importlib.metadata.version("pyarrow")},
        records_sha256="",
        plan_sha256=sha256_of_file(layout.split_path(data_dir, plan.split, layout.PLAN)),
    )
    report(data_dir, manifest, _count_by_reason(columns, images.REPAIRED))
    require_few_rejected(data_dir, manifest, max_rejected_fraction)
    records_sha256 = save_records(data_dir, plan.split, _to_arrays(columns))
    manifest = dataclasses.replace(manifest, records_sha256=records_sha256)
    save_manifest(data_dir, manifest)
    return manifest


def report(data_dir: str, manifest: Manifest, repaired: dict[str, int]) -> None:
    """Logs what became of the images, with a line for each reason."""
    num_rejected = sum(manifest.rejected.values())
    logging.info(
        f"{manifest.num_listed} images listed: {manifest.num_examples} stored"
        f" ({manifest.num_repaired} of them repaired), {num_rejected} rejected"
    )
    for action, counts, name in (
        ("repaired", repaired, layout.REPAIRED),
        ("rejected", manifest.rejected, layout.REJECTED),
    ):
        for reason, count in counts.items():
            logging.info(f"  {action}: {count} {reason}")
        if counts:
            logging.info(f"  see {layout.split_path(data_dir, manifest.split, name)}")


def require_few_rejected(data_dir: str, manifest: Manifest, max_fraction: float) -> None:
    """Checks that the data set is not much smaller than what it was made from.

    Raises:
        UserError: more than `max_fraction` of the images were rejected, or all of them.
    """
    num_rejected = sum(manifest.rejected.values())
    path = layout.split_path(data_dir, manifest.split, layout.REJECTED)
    if not manifest.num_examples:
        raise UserError(f"all {num_rejected} images were rejected: {path} says why")
    if num_rejected > max_fraction * manifest.num_listed:
        raise UserError(
            f"{num_rejected} of {manifest.num_listed} images were rejected, more than"
            f" --max_rejected_fraction={max_fraction}: {path} says why; mend the files, or raise"
            " the limit and run again"
        )


def _add_rows(
    columns: dict[str, list],
    odd: list[dict],
    data_dir: str,
    plan: Plan,
    index: int,
    result: ShardResult,
) -> None:
    for image, row in zip(read_shard(data_dir, plan, index), result.rows, strict=True):
        # A file's name may be any bytes, a text column may not.
        key = os.fsencode(image.key).decode("utf-8", "backslashreplace")
        columns["key"].append(key)
        columns["sha256"].append(row.sha256)
        columns["label"].append(image.class_index)
        columns["class"].append(plan.classes[image.class_index])
        columns["shard"].append(index)
        for name in ("offset", "length", "width", "height", "action", "reason"):
            columns[name].append(getattr(row, name))
        if row.action != images.VERBATIM:
            odd.append(
                {"key": key, "action": row.action, "reason": row.reason, "detail": row.detail}
            )


def _to_arrays(columns: dict[str, list]) -> dict[str, list | np.ndarray]:
    kinds = {"offset": np.int64} | dict.fromkeys(
        ("label", "shard", "length", "width", "height"), np.int32
    )
    return {
        name: np.array(values, kinds[name]) if name in kinds else values
        for name, values in columns.items()
    }


def _count_by_reason(columns: dict[str, list], action: str) -> dict[str, int]:
    pairs = zip(columns["action"], columns["reason"], strict=True)
    counts = collections.Counter(reason for found, reason in pairs if found == action)
    return dict(sorted(counts.items()))


def _write_lines(data_dir: str, split: str, name: str, rows: Iterable[dict]) -> None:
    lines = (
        json.dumps({name: row[name] for name in ("key", "reason", "detail")}, ensure_ascii=False)
        for row in rows
    )
    path = layout.split_path(data_dir, split, name)
    write_text(path, "".join(f"{line}\n" for line in lines))
