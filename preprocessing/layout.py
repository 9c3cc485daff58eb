"""Where the files of a data set lie.

    DATA_DIR/train-00000-of-00008 ...   the shards, flat, under the classic names
    DATA_DIR/train/manifest.json        what the split is; written last
    DATA_DIR/train/records.parquet      one row per listed image
    DATA_DIR/train/rejected.jsonl       one line per image that is not in
    DATA_DIR/train/repaired.jsonl       one line per image that was encoded anew
    DATA_DIR/train/duplicates.jsonl     one line per content that more than one image has
    DATA_DIR/train/also_in.jsonl        one line per image that another split holds too
    DATA_DIR/train/plan.json, .jsonl    which image belongs to which shard
    DATA_DIR/train/rows/00000.parquet   what came of each shard
    DATA_DIR/dataset_info.json ...      what TFDS needs to read the finished splits

Nothing but shards begins with `train-`, since readers take every file that does. The row files stay
after a build, at about a hundred bytes per image: with them, a shard that is lost or damaged later
is made again alone.
"""

from __future__ import annotations

import os
import re

from common.errors import UsageError
from common.files import TEMPORARY_PREFIX, Entry, exists, is_remote, join, list_directory

MANIFEST = "manifest.json"
RECORDS = "records.parquet"
REJECTED = "rejected.jsonl"
REPAIRED = "repaired.jsonl"
DUPLICATES = "duplicates.jsonl"
ALSO_IN = "also_in.jsonl"
PLAN = "plan.json"
PLAN_BODY = "plan.jsonl"
ROWS = "rows"


def shard_name(split: str, index: int, num_shards: int) -> str:
    return f"{split}-{index:05d}-of-{num_shards:05d}"


def split_path(data_dir: str, split: str, *names: str) -> str:
    """Path of a file in the folder of `split`, or of the folder itself."""
    return join(data_dir, split, *names)


def row_file(data_dir: str, split: str, index: int) -> str:
    return split_path(data_dir, split, ROWS, f"{index:05d}.parquet")


def find_shards(data_dir: str, split: str) -> dict[str, int]:
    """All files in `data_dir` that a reader would take for shards of `split`, with their bytes."""
    prefix = f"{split}-"
    return {
        entry.name: entry.num_bytes for entry in _entries(data_dir) if entry.name.startswith(prefix)
    }


def find_splits(data_dir: str, file: str = MANIFEST) -> list[str]:
    """Names of the splits in `data_dir` that have a file, sorted; by default the finished ones."""
    return [
        entry.name
        for entry in _entries(data_dir)
        if entry.is_directory and exists(split_path(data_dir, entry.name, file))
    ]


def _entries(data_dir: str) -> list[Entry]:
    """What is in a directory; in a bucket, one that nothing lies in yet is not there."""
    try:
        return list_directory(data_dir)
    except FileNotFoundError:
        if is_remote(data_dir):
            return []
        raise


def remove_temporaries(data_dir: str, split: str) -> None:
    """Removes what killed builds of this split have left behind under temporary names.

    In a bucket there is nothing of the kind.
    """
    if is_remote(data_dir):
        return
    shard = re.compile(re.escape(TEMPORARY_PREFIX) + rf"[\d-]+-{split}-\d+-of-\d+")
    for folder, is_ours in (
        (data_dir, shard.fullmatch),
        (split_path(data_dir, split), lambda name: name.startswith(TEMPORARY_PREFIX)),
        (split_path(data_dir, split, ROWS), lambda name: name.startswith(TEMPORARY_PREFIX)),
    ):
        for name in os.listdir(folder):
            if is_ours(name):
                os.remove(os.path.join(folder, name))


def require_split_name(split: str) -> None:
    """Checks that `split` can be part of file names.

    Raises:
        UsageError: it is empty or has other signs than letters, digits and '_'.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", split):
        raise UsageError(
            f"--split={split!r} is no split name: use letters, digits and '_', for example 'train'"
        )
