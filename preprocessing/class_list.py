"""Which class has which index, and what it is called in plain words."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence

from common.errors import UserError
from common.files import read_bytes

FROM_FILE, FROM_IMAGENET, FROM_FOLDERS = "file", "imagenet", "folders"

# The words in it come from a file of timm, which is under the same licence as this project.
IMAGENET_CLASSES = "imagenet_classes.tsv"


@dataclasses.dataclass(frozen=True)
class ClassList:
    """Class names in the order of their indices.

    Attributes:
        names: line k is class index k.
        texts: what each class is called in plain words; its name where nothing tells them.
        source: `FROM_FILE`, `FROM_IMAGENET` or `FROM_FOLDERS`.
        file_sha256: SHA-256 of the file, when there was one.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    source: str
    file_sha256: str | None = None


def choose_class_list(
    folders: Sequence[str], classes_file: str | None, class_text_file: str | None = None
) -> ClassList:
    """Takes the given file, else ImageNet's order if all folders are its synsets, else folders.

    Args:
        folders: names of the classes of a source, in the order that it has itself.
        classes_file: path of a file with one class name per line, or None.
        class_text_file: path of a file with lines `name<TAB>text`, or None; ImageNet's synsets that
            it does not name keep ImageNet's words.

    Raises:
        UserError: a file is unreadable, lacks a folder, or names no class.
    """
    names, source, file_sha256 = tuple(folders), FROM_FOLDERS, None
    if classes_file:
        names, file_sha256 = read_class_file(classes_file)
        source = FROM_FILE
        missing = sorted(set(folders) - set(names))
        if missing:
            raise UserError(
                f"--classes={classes_file} lacks {enumerate_names(missing)}: add a line for each"
                " such folder, or take the folder out of --source"
            )
    elif set(folders) <= set(imagenet_synsets()):
        names, source = imagenet_synsets(), FROM_IMAGENET
    texts = imagenet_texts()
    if class_text_file:
        texts = {**texts, **_read_texts(class_text_file, names)}
    return ClassList(names, tuple(texts.get(name, name) for name in names), source, file_sha256)


def read_class_file(path: str) -> tuple[tuple[str, ...], str]:
    """Reads a class list, one name per line; empty lines at the end do not count.

    Returns:
        The names, and the SHA-256 of the file.

    Raises:
        UserError: the file cannot be read, is empty, or a line is empty or stands twice.
    """
    content, lines = _read_lines(path, "classes")
    lines = [line.strip() for line in lines]
    if not lines:
        raise UserError(f"--classes={path} is empty: it needs one class name per line")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            raise UserError(f"--classes={path}: line {number} is empty")
        if line in seen:
            raise UserError(f"--classes={path}: {line!r} is on lines {seen[line]} and {number}")
        seen[line] = number
    return tuple(lines), hashlib.sha256(content).hexdigest()


def imagenet_synsets() -> tuple[str, ...]:
    """The 1,000 synsets of ImageNet in the order of their class indices."""
    return tuple(imagenet_texts())


@functools.cache
def imagenet_texts() -> dict[str, str]:
    """What ImageNet's classes are called, by synset, in the order of their indices."""
    path = os.path.join(os.path.dirname(__file__), IMAGENET_CLASSES)
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file if not line.startswith("#")]
    return dict(line.split("\t") for line in lines)


def enumerate_names(names: Sequence[str], at_most: int = 5) -> str:
    shown = ", ".join(names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"


def _read_texts(path: str, names: Sequence[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, line in enumerate(_read_lines(path, "class_text")[1], 1):
        name, _, text = (part.strip() for part in line.partition("\t"))
        if not line.strip():
            continue
        if not name or not text:
            raise UserError(
                f"--class_text={path}: line {number} is {line.strip()!r}: a class name, a tab and a"
                " text are expected"
            )
        if texts.setdefault(name, text) != text:
            raise UserError(
                f"--class_text={path}: {name!r} has two texts, line {number} the second"
            )
    if not texts.keys() & set(names):
        raise UserError(
            f"--class_text={path} names none of the classes {enumerate_names(names, 3)}: each line"
            " is a class name, a tab and a text"
        )
    return texts


def _read_lines(path: str, flag: str) -> tuple[bytes, list[str]]:
    try:
        content = read_bytes(path)
        return content, content.decode("utf-8").rstrip().splitlines()
    except OSError as error:
        raise UserError(f"--{flag}={path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"--{flag}={path} is not a text file in UTF-8") from None
