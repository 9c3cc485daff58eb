"""What is evaluated on: every split of every directory that the flags name."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence

from common import files
from common.errors import UserError
from training.config import DataFlags
from training.readers import open_split
from training.shards import Shards


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A split, or a part of one.

    Attributes:
        data_dir: its directory.
        split: as the user wrote it.
        shards: its records.
        output: JSON file of its evaluation; empty for none.
    """

    data_dir: str
    split: str
    shards: Shards
    output: str


def open_data_sets(data_dir: str, split: str, dataset_name: str, output: str) -> list[DataSet]:
    """Opens every split of every directory, in the order in which they are named.

    Args:
        data_dir: directories, separated by commas.
        split: splits or parts of them, separated by commas.
        dataset_name: of a TFDS data set below the directories; empty for none.
        output: JSON file; where there are several data sets, the name of each goes in before its
            suffix.

    Raises:
        UserError: one is not there, or their class lists differ.
    """
    found = [
        (directory, name, open_split(DataFlags(directory, dataset_name), name))
        for directory in _listed(data_dir, "data_dir")
        for name in _listed(split, "split")
    ]
    first_dir, first_split, first = found[0]
    for directory, name, shards in found[1:]:
        if shards.classes != first.classes:
            raise UserError(
                f"split {name!r} of {directory} has other classes than {first_split!r} of"
                f" {first_dir}: evaluate them one at a time"
            )
    names = _short_names([(directory, shards) for directory, _, shards in found])
    outputs = [output if len(found) == 1 else _with_name(output, name) for name in names]
    return [DataSet(*row, out) for row, out in zip(found, outputs, strict=True)]


def file_name_of(shards: Shards, example: int) -> str:
    """The name of the file that an example of `shards` was made from; "" where none is stored."""
    import tensorflow as tf

    shard, record = shards.place_of(example)
    parsed = shards.parse(tf.constant(shards.read(shard, record, 1)[0]))
    return parsed["file_name"].numpy().decode("utf-8", "replace")


def _listed(words: str, flag: str) -> list[str]:
    # A single directory may have a comma in its name.
    if flag == "data_dir" and files.is_directory(words):
        return [words]
    listed = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    if not listed:
        raise UserError(f"--{flag} is empty: name one at least")
    return listed


def _short_names(data: Sequence[tuple[str, Shards]]) -> list[str]:
    """Names for files, all different: of the split, its part, and the directory if need be."""
    splits = [_file_name(shards) for _, shards in data]
    if len(set(splits)) == len(splits):
        return splits
    folders = [os.path.basename(os.path.normpath(directory)) for directory, _ in data]
    names = [f"{folder}-{split}" for folder, split in zip(folders, splits, strict=True)]
    if len(set(names)) == len(names):
        return names
    return [f"{name}-{number}" for number, name in enumerate(names)]


def _file_name(shards: Shards) -> str:
    """`validation`, or `validation-0-1000` for a part."""
    whole, *part = re.split(r"\[", shards.name, maxsplit=1)
    whole = re.sub(r"[^\w.-]", "-", whole)
    if not part:
        return whole
    return f"{whole}-{shards.first_example}-{shards.first_example + shards.num_examples}"


def _with_name(output: str, name: str) -> str:
    stem, suffix = os.path.splitext(output)
    return f"{stem}-{name}{suffix}" if output else ""
