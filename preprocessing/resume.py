"""What an earlier build of a split has left, and what of it still holds."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os

from common.errors import UserError
from common.files import (
    crc32c_of_file,
    exists,
    is_remote,
    join,
    make_directory,
    read_bytes,
    remove,
    sha256_of_bytes,
    sha256_of_file,
)
from common.locks import alone_in
from common.progress import Progress
from preprocessing import images, layout
from preprocessing.account import require_few_rejected
from preprocessing.manifest import load_manifest
from preprocessing.plan import Plan, difference, load_plan, save_plan
from preprocessing.records import read_rows, spans_of
from preprocessing.shard_digest import digest_of_file


def locked(data_dir: str, split: str) -> contextlib.AbstractContextManager[None]:
    """Keeps a second build of the same split out.

    In a bucket nobody is kept out: there two builds of one plan write the same bytes, twice.

    Raises:
        UserError: another build is running.
    """
    make_directory(layout.split_path(data_dir, split, layout.ROWS))
    return alone_in(
        layout.split_path(data_dir, split),
        f"another build of split {split!r} in {data_dir} is running: wait for its end, or use"
        " another --output_dir",
    )


def settle_plan(data_dir: str, plan: Plan, body: bytes) -> Plan:
    """Saves the plan, or checks that it is the one that is there; returns the one in force.

    Raises:
        UserError: the directory holds a build from other flags or images, or shards of no build, or
            another split with other classes.
    """
    cure = "use another --output_dir, or delete this one"
    old_body = _read_if_there(layout.split_path(data_dir, plan.split, layout.PLAN_BODY))
    try:
        old = load_plan(data_dir, plan.split)
    except UserError as error:
        logging.warning(f"{error}: making it anew")
        old = None
    require_classes_of_other_splits(data_dir, plan)
    if old is None:
        foreign = layout.find_shards(data_dir, plan.split)
        # What the images are is in the body; row files and hashes tell what the shards are.
        if foreign and old_body != body:
            raise UserError(
                f"{data_dir} holds {min(foreign)}, which belongs to no build of split"
                f" {plan.split!r} there; {cure}"
            )
    elif reason := difference(old, old_body, plan, body):
        raise UserError(f"{data_dir} holds another build of split {plan.split!r}: {reason}; {cure}")
    elif sha256_of_bytes(old_body) == old.body_sha256:
        return old
    save_plan(data_dir, plan, body)
    return plan


def require_classes_of_other_splits(data_dir: str, plan: Plan) -> None:
    """Checks that labels mean the same in all splits of a directory, finished or not.

    Raises:
        UserError: another split has other classes.
    """
    for split in layout.find_splits(data_dir, layout.PLAN):
        other = load_plan(data_dir, split) if split != plan.split else plan
        classes = other.classes if other else plan.classes
        if classes != plan.classes:
            raise UserError(
                f"split {split!r} in {data_dir} has {len(classes)} classes ({classes[0]!r} ...),"
                f" but split {plan.split!r} would have {len(plan.classes)} ({plan.classes[0]!r}"
                " ...), so that labels would mean other things: give both the same list by"
                " --classes=FILE, or use another --output_dir"
            )


def is_finished(data_dir: str, plan: Plan, max_rejected_fraction: float) -> bool:
    """Whether the split is there in full, by the sizes of its shards: quick for any amount of data.

    Raises:
        UserError: it is, but more images were rejected than are now allowed.
    """
    if not exists(layout.split_path(data_dir, plan.split, layout.MANIFEST)):
        return False
    try:
        manifest = load_manifest(data_dir, plan.split)
    except UserError as error:
        logging.warning(f"{error}: making it anew")
        return False
    found = layout.find_shards(data_dir, plan.split)
    for shard in manifest.shards:
        if found.get(shard.name) != shard.num_bytes:
            path = join(data_dir, shard.name)
            logging.warning(f"{path} is missing or has another size than the manifest says")
            return False
    path = layout.split_path(data_dir, plan.split, layout.RECORDS)
    if not exists(path) or sha256_of_file(path) != manifest.records_sha256:
        logging.warning(f"{path} is missing or not what the manifest says")
        return False
    require_few_rejected(data_dir, manifest, max_rejected_fraction)
    return True


def shards_to_do(data_dir: str, plan: Plan) -> list[int]:
    """Numbers of the shards that are not there, or not what their row files say, by their hashes.

    The manifest goes first: until all shards are whole again there is no finished split.
    """
    remove(layout.split_path(data_dir, plan.split, layout.MANIFEST))
    sizes = layout.find_shards(data_dir, plan.split)
    present = [index for index in range(plan.num_shards) if plan.shard_name(index) in sizes]
    finished = set()
    with (
        Progress(len(present), "shards", "checking what is there") as progress,
        concurrent.futures.ThreadPoolExecutor(max(4, os.cpu_count() or 1)) as pool,
    ):
        checks = pool.map(lambda index: _is_whole(data_dir, plan, index, sizes), present)
        for index, whole in zip(present, checks, strict=True):
            progress.update(1)
            if whole:
                finished.add(index)
    if finished:
        logging.info(f"{len(finished)} of {plan.num_shards} shards are finished already")
    return [index for index in range(plan.num_shards) if index not in finished]


def _is_whole(data_dir: str, plan: Plan, index: int, sizes: dict[str, int]) -> bool:
    """Whether a shard need not be written again: its file is what its row file says, by its hash.

    One with files that could not be read is not: that lies outside them and may be mended by now.
    """
    found = read_rows(layout.row_file(data_dir, plan.split, index))
    name = plan.shard_name(index)
    if found is None:
        return False
    rows, summary = found
    if len(rows) != plan.num_images[index] or sizes[name] != summary.num_bytes:
        return False
    if images.UNREADABLE in rows["reason"].to_pylist():
        return False
    path = join(data_dir, name)
    if is_remote(path):  # a bucket knows the checksum of what it holds
        return crc32c_of_file(path) == summary.crc32c
    return digest_of_file(path, spans_of(rows)) == summary.digest


def _read_if_there(path: str) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return b""
