"""What was written, counted: the records table, the lists of odd images, the manifest."""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import UserError
from common.files import sha256_of_file, write_json_lines
from common.labels import LabelNumbering
from common.locks import alone_in
from preprocessing import images, layout
from preprocessing.duplicates import list_duplicates, list_shared_images
from preprocessing.examples import LABEL_OFFSET
from preprocessing.manifest import STORED_INPUT, Manifest, ShardInfo, load_manifest, save_manifest
from preprocessing.plan import Plan
from preprocessing.records import DETAIL, read_rows, save_records
from preprocessing.tfds_metadata import save_tfds_metadata

if TYPE_CHECKING:
    import pyarrow as pa


def account(data_dir: str, plan: Plan, max_rejected_fraction: float) -> Manifest:
    """Gathers the row files of all shards, one at a time; the manifest comes last.

    Raises:
        UserError: too many images were rejected, or all of them; then there is no manifest.
    """
    tally = _Tally(plan)
    save_records(data_dir, plan.split, tally.count(_shard_rows(data_dir, plan)))
    num_duplicates = list_duplicates(data_dir, plan.split)
    for action, name in ((images.REJECTED, layout.REJECTED), (images.REPAIRED, layout.REPAIRED)):
        rows = sorted(tally.odd[action], key=lambda row: row["key"])
        write_json_lines(layout.split_path(data_dir, plan.split, name), rows)
    manifest = Manifest(
        split=plan.split,
        num_examples=int(tally.per_class.sum()),
        classes=plan.classes,
        class_texts=plan.class_texts,
        class_list_source=plan.class_list_source,
        class_list_sha256=plan.class_list_sha256,
        labels=LabelNumbering(len(plan.classes), LABEL_OFFSET),
        stored_input=STORED_INPUT,
        examples_per_class=tuple(tally.per_class.tolist()),
        shards=tuple(tally.shards),
        num_listed=sum(plan.num_images),
        num_repaired=tally.num_of(images.REPAIRED),
        num_resized=tally.num_of(images.RESIZED),
        num_duplicates=num_duplicates,
        rejected=tally.reasons_of(images.REJECTED),
        seed=plan.flags["seed"],
        source=plan.source,
        flags=plan.flags,
        versions=plan.versions
        | {name: importlib.metadata.version(name) for name in ("pyarrow", "apache-beam")},
        records_sha256=sha256_of_file(layout.split_path(data_dir, plan.split, layout.RECORDS)),
        plan_sha256=sha256_of_file(layout.split_path(data_dir, plan.split, layout.PLAN)),
    )
    report(data_dir, manifest, tally.reasons_of(images.REPAIRED))
    require_few_rejected(data_dir, manifest, max_rejected_fraction)
    with alone_in(data_dir):  # builds of two splits that end together see each other
        others = [name for name in layout.find_splits(data_dir) if name != plan.split]
        list_shared_images(data_dir, plan.split, others)
        finished = [load_manifest(data_dir, name) for name in others]
        save_tfds_metadata(data_dir, [manifest, *finished])
        save_manifest(data_dir, manifest)
    return manifest


def report(data_dir: str, manifest: Manifest, repaired: dict[str, int]) -> None:
    """Logs what became of the images, with a line for each reason."""
    resized = f", {manifest.num_resized} resized" if manifest.num_resized else ""
    logging.info(
        f"{manifest.num_listed} images listed: {manifest.num_examples} stored"
        f" ({manifest.num_repaired} of them repaired{resized}),"
        f" {sum(manifest.rejected.values())} rejected"
    )
    duplicate = {"the bytes of an image before them": manifest.num_duplicates}
    for what, counts, name in (
        ("repaired:", repaired, layout.REPAIRED),
        ("rejected:", manifest.rejected, layout.REJECTED),
        ("duplicates:", duplicate if manifest.num_duplicates else {}, layout.DUPLICATES),
    ):
        for reason, count in counts.items():
            logging.info(f"  {what} {count} {reason}")
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
            f" --max_rejected_fraction={max_fraction}: {path} says why; raise the limit and run"
            " again, or mend the files and build into another --output_dir"
        )


class _Tally:
    """Counts the rows that pass through it."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self.per_class = np.zeros(len(plan.classes), np.int64)
        self.shards: list[ShardInfo] = []
        self.odd: dict[str, list[dict[str, str]]] = collections.defaultdict(list)
        self._ends: collections.Counter[tuple[str, str]] = collections.Counter()

    def count(self, shards: Iterable[tuple[pa.Table, Any]]) -> Iterator[pa.Table]:
        import pyarrow.compute as pc

        for rows, summary in shards:
            labels, offsets = (rows.column(name).to_numpy() for name in ("label", "offset"))
            stored = offsets >= 0
            self.per_class += np.bincount(labels[stored], minlength=len(self.per_class))
            name = self._plan.shard_name(len(self.shards))
            self.shards.append(ShardInfo(name, int(stored.sum()), **dataclasses.asdict(summary)))
            ends = (rows.column(name).to_pylist() for name in ("action", "reason"))
            self._ends.update(zip(*ends, strict=True))
            # What has been repaired may have been made smaller, too.
            odd = rows.filter(pc.not_equal(rows["reason"], ""))
            for row in odd.select(["key", "action", "reason", DETAIL]).to_pylist():
                rejected = row.pop("action") == images.REJECTED
                self.odd[images.REJECTED if rejected else images.REPAIRED].append(row)
            yield rows

    def num_of(self, action: str) -> int:
        return sum(self.reasons_of(action).values())

    def reasons_of(self, action: str) -> dict[str, int]:
        """How many images came to this end, by reason."""
        return {
            reason: count for (end, reason), count in sorted(self._ends.items()) if end == action
        }


def _shard_rows(data_dir: str, plan: Plan) -> Iterator[tuple[pa.Table, Any]]:
    for index in range(plan.num_shards):
        path = layout.row_file(data_dir, plan.split, index)
        found = read_rows(path)
        if found is None or len(found[0]) != plan.num_images[index]:
            raise UserError(f"{path} is missing or damaged: run the same command again")
        yield found
