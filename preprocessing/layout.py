"""Where the files of a data set lie.

    DATA_DIR/train-00000-of-00008 ...   the shards, flat, under the classic names
    DATA_DIR/train/manifest.json        what the split is; written last
    DATA_DIR/train/records.parquet      one row per listed image
    DATA_DIR/train/rejected.jsonl       one row per image that is not in
    DATA_DIR/train/repaired.jsonl       one row per image that was encoded anew
    DATA_DIR/train/plan.json, .jsonl    which image belongs to which shard
    DATA_DIR/train/rows/00000.json ...  what came of each shard

Nothing but shards begins with `train-`, since readers take every file that does. The row files stay
after a build, at a few hundred bytes per image: with them, a shard that is lost or damaged later is
made again alone.
"""

from __future__ import annotations

import os
import re

from common.errors import UsageError
from common.files import TEMPORARY_PREFIX

MANIFEST = "manifest.json"
RECORDS = "records.parquet"
REJECTED = "rejected.jsonl"
REPAIRED = "repaired.jsonl"
PLAN = "plan.json"
PLAN_BODY = "plan.jsonl"
ROWS = "rows"


def shard_name(split: str, index: int, num_shards: int) -> str:
    return f"{split}-{index:05d}-of-{num_shards:05d}"


def split_path(data_dir: str, split: str, *names: str) -> str:
    """Path of a file in the folder of `split`, or of the folder itself."""
    return os.path.join(data_dir, split, *names)


def row_file(data_dir: str, split: str, index: int) -> str:
    return split_path(data_dir, split, ROWS, f"{index:05d}.json")


def find_shards(data_dir: str, split: str) -> list[str]:
    """Names of all files in `data_dir` that a reader would take for shards of `split`, sorted."""
    prefix = f"{split}-"
    return sorted(name for name in os.listdir(data_dir) if name.startswith(prefix))


def remove_temporaries(data_dir: str, split: str) -> None:
    """Removes what killed builds of this split have left behind under temporary names."""
    shard = re.compile(re.escape(TEMPORARY_PREFIX) + rf"\d+-{split}-\d+-of-\d+")
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
