"""Opens a split of any data set that training and evaluation can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import files
from common.errors import UserError
from training.readers.classic import find_classic, open_classic
from training.readers.prepared import is_prepared, open_prepared
from training.readers.slices import parse_split
from training.readers.synthetic import SYNTHETIC, open_synthetic
from training.shards import Shards

if TYPE_CHECKING:
    from training.config import DataFlags


def open_split(data: DataFlags, split: str) -> Shards:
    """Finds out what the data is, and where its records lie.

    Args:
        data: `data_dir` and `dataset_name` are looked at.
        split: name of a split, or a part of one as in `train[:98%]`.

    Raises:
        UserError: there is no such split, or it is not whole; one line says what to do.
        UsageError: `split` cannot be understood.
    """
    part = parse_split(split)
    whole = _open_whole(data, part.split)
    name = f"{data.dataset_name}:{split}" if data.dataset_name else split
    if part.is_whole:
        return whole
    start, stop = part.range_of(whole.num_examples)
    return whole.part(start, stop, name)


def _open_whole(data: DataFlags, split: str) -> Shards:
    if data.dataset_name == SYNTHETIC:
        return open_synthetic(split)
    if data.dataset_name:
        return open_prepared(data.data_dir, data.dataset_name, split)
    # What our own build began is read only when its manifest says that it is finished.
    own = (files.join(data.data_dir, split, name) for name in ("manifest.json", "plan.json"))
    if any(files.exists(path) for path in own):
        return Shards.open(data.data_dir, split)
    if found := find_classic(data.data_dir, split):
        return open_classic(found)
    # Our own builds can be opened by TFDS too, but know more of themselves than it does.
    if others := _own_splits(data.data_dir):
        raise UserError(
            f"there is no finished split {split!r} in {data.data_dir}, only {', '.join(others)}:"
            " `python -m preprocessing.build_dataset` makes it"
        )
    if is_prepared(data.data_dir):
        return open_prepared(data.data_dir, "", split)
    if not files.is_directory(data.data_dir):
        raise UserError(f"--data_dir={data.data_dir} does not exist or is no directory")
    raise UserError(
        f"there is no finished split {split!r} in {data.data_dir}: neither {split}/manifest.json,"
        f" which preprocessing.build_dataset writes last, nor {split}-00000-of-NNNNN, as tf-slim"
        " and TPU name their shards; for a TFDS data set below it pass --dataset_name=NAME"
    )


def _own_splits(data_dir: str) -> list[str]:
    """Names of the finished splits of our own that are there."""
    if not files.is_directory(data_dir):
        return []
    names = [entry.name for entry in files.list_directory(data_dir) if entry.is_directory]
    return [name for name in names if files.exists(files.join(data_dir, name, "manifest.json"))]
