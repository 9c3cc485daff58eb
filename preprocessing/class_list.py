"""Which class has which index."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Sequence

from common.errors import UserError

FROM_FILE, FROM_IMAGENET, FROM_FOLDERS = "file", "imagenet", "folders"


@dataclasses.dataclass(frozen=True)
class ClassList:
    """Class names in the order of their indices.

    Attributes:
        names: line k is class index k.
        source: `FROM_FILE`, `FROM_IMAGENET` or `FROM_FOLDERS`.
        file_sha256: SHA-256 of the file, when there was one.
    """

    names: tuple[str, ...]
    source: str
    file_sha256: str | None = None


def choose_class_list(folders: Sequence[str], classes_file: str | None) -> ClassList:
    """Takes the given file, else ImageNet's order if all folders are its synsets, else folders.

    Args:
        folders: names of the class folders, sorted.
        classes_file: path of a file with one class name per line, or None.

    Raises:
        UserError: the file is unreadable or lacks a folder, or ImageNet's list cannot be found.
    """
    if classes_file:
        classes = read_class_file(classes_file)
        missing = sorted(set(folders) - set(classes.names))
        if missing:
            raise UserError(
                f"--classes={classes_file} lacks {_enumerate(missing)}: add a line for each such"
                " folder, or take the folder out of --input_dir"
            )
        return classes
    if all(re.fullmatch(r"n\d{8}", folder) for folder in folders):
        synsets = imagenet_synsets()
        if set(folders) <= set(synsets):
            return ClassList(synsets, FROM_IMAGENET)
    return ClassList(tuple(folders), FROM_FOLDERS)


def read_class_file(path: str) -> ClassList:
    """Reads a class list, one name per line; empty lines at the end do not count.

    Raises:
        UserError: the file cannot be read, is empty, or a line is empty or stands twice.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        lines = [line.strip() for line in content.decode("utf-8").rstrip().splitlines()]
    except OSError as error:
        raise UserError(f"--classes={path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--classes={path} is not a text file in UTF-8") from None
    if not lines:
        raise UserError(f"--classes={path} is empty: it needs one class name per line")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            raise UserError(f"--classes={path}: line {number} is empty")
        if line in seen:
            raise UserError(f"--classes={path}: {line!r} is on lines {seen[line]} and {number}")
        seen[line] = number
    return ClassList(tuple(lines), FROM_FILE, hashlib.sha256(content).hexdigest())


@functools.cache
def imagenet_synsets() -> tuple[str, ...]:
    """The 1,000 synsets of ImageNet in the order of their class indices.

    They come with TFDS, whose folder is found without importing it (and TensorFlow with it).

    Raises:
        UserError: TFDS is not installed.
    """
    spec = importlib.util.find_spec("tensorflow_datasets")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = os.path.join(folder, "datasets", "imagenet2012", "labels.txt")
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                return tuple(file.read().split())
    raise UserError(
        "the class folders look like ImageNet synsets, but ImageNet's class order is not at hand:"
        " install tensorflow-datasets, or give the order with --classes=FILE"
    )


def _enumerate(names: Sequence[str], at_most: int = 5) -> str:
    shown = ", ".join(names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"
