"""The classes of images that do not lie in class folders, from a file of labels.

A line is a class name, for the images in the order of their sorted names; or `file_name class`,
with a comma, a tab or blanks between the two. The official validation images need no file: TFDS
brings their classes along, by the number in their names.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Collection, Container, Sequence

from common.errors import UsageError, UserError
from common.files import is_remote, join, read_bytes
from preprocessing.class_list import enumerate_names, imagenet_synsets

NUM_OFFICIAL = 50_000

_OFFICIAL = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_SYNSET = re.compile(r"n\d{8}")
_NAMES_AN_IMAGE = re.compile(r"\.(jpe?g|png)\b", re.IGNORECASE)

# Behind a class, as in the lists that Kaggle gives out for ImageNet: boxes, with the class of each.
_BOXES = re.compile(r"(n\d{8})((?: \d+){4}(?: n\d{8})?)+ ?")


def are_official_names(names: Collection[str]) -> bool:
    """Whether all are names of ILSVRC2012's validation images."""
    return bool(names) and all(map(_official_number, names))


def refuse_labels(labels: str | None, kind: str) -> None:
    """Checks that no labels are given for a source that has its own.

    Raises:
        UsageError: there are.
    """
    if labels:
        raise UsageError(
            f"--labels={labels} is for a flat folder or tar of images; the source is a {kind},"
            " which says the classes itself: leave --labels out"
        )


def label_flat(source: str, names: Sequence[str], labels: str | None) -> dict[str, str]:
    """The class of each image of a flat folder or tar, by its name.

    Files that can be no image are left out where they lie beside them: tars, the labels themselves.

    Raises:
        UserError: there are no labels for them, or they do not fit.
    """
    names = sorted(name for name in names if not _is_beside(source, name, labels))
    if labels:
        return _from_file(labels, names)
    if are_official_names(names):
        synsets = official_labels()
        return {name: synsets[_official_number(name) - 1] for name in names}
    raise UserError(
        f"--source={source} holds {len(names)} files but no class folders: images are expected as"
        f" {join(source, 'CLASS', 'IMAGE')}, or give the class of each file with --labels=FILE"
    )


def official_labels() -> list[str]:
    """The synsets of the 50,000 official validation images in the order of their numbers.

    They come with TFDS, whose folder is found without importing it (and TensorFlow with it).

    Raises:
        UserError: TFDS is not installed, or its list is not as expected.
    """
    spec = importlib.util.find_spec("tensorflow_datasets")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = os.path.join(folder, "datasets", "imagenet2012", "validation_labels.txt")
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                synsets = file.read().split()
            if len(synsets) == NUM_OFFICIAL and set(synsets) == set(imagenet_synsets()):
                return synsets
            raise UserError(f"{path} is not the list of {NUM_OFFICIAL} synsets: give --labels=FILE")
    raise UserError(
        "the images look like ImageNet's validation images, but their labels are not at hand:"
        " install tensorflow-datasets, or give them with --labels=FILE"
    )


def _official_number(name: str) -> int | None:
    match = _OFFICIAL.fullmatch(name)
    number = int(match[1]) if match else 0
    return number if 1 <= number <= NUM_OFFICIAL else None


def _is_beside(source: str, name: str, labels: str | None) -> bool:
    if name.endswith(".tar") or labels == join(source, name):
        return True
    if labels is None or is_remote(labels) or is_remote(source):
        return False
    return os.path.realpath(labels) == os.path.realpath(join(source, name))


def _from_file(path: str, names: list[str]) -> dict[str, str]:
    lines = _read_lines(path)
    pairs = _pairs(path, lines, names)
    if pairs is None:
        if all(line.isdecimal() for line in lines):
            raise UserError(
                f"--labels={path} holds numbers only: those of ImageNet's development kit count the"
                " classes in an order of its own, not that of the sorted synsets; give a synset or"
                " class name per line instead (without --labels the official images get theirs)"
            )
        if len(lines) != len(names):
            raise UserError(
                f"--labels={path} has {len(lines)} lines, but there are {len(names)} images: it"
                " needs a class name for each, in the order of the sorted file names, or lines"
                " `file_name class`"
            )
        if all(_NAMES_AN_IMAGE.search(line) for line in lines):
            raise UserError(
                f"--labels={path} names images, the first in {lines[0]!r}, but none of those that"
                f" are there, such as {names[0]!r}: write the names as they are, in lines"
                " `file_name class`"
            )
        pairs = dict(zip(names, lines, strict=True))
    else:
        missing = [name for name in names if name not in pairs]
        if missing:
            raise UserError(f"--labels={path} has no line for {enumerate_names(missing)}")
        if are_official_names(names) and all(value.isdecimal() for value in pairs.values()):
            raise UserError(
                f"--labels={path} numbers the classes, and there is more than one numbering of"
                " ImageNet's: give synsets instead"
            )
    _require_sensible(path, set(pairs.values()))
    return pairs


def _pairs(path: str, lines: list[str], names: list[str]) -> dict[str, str] | None:
    """Class by image from lines `file_name class`; None if the lines are not like that."""
    images = {os.path.splitext(name)[0]: name for name in names}
    images |= {name: name for name in names}
    pairs: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        first, class_name = _split(line, images)
        name = images.get(first)
        if name is None or not class_name:
            # A heading, or images of another set; where it is neither, an image will be missing.
            continue
        if pairs.setdefault(name, class_name) != class_name:
            raise UserError(
                f"--labels={path}: line {number} says {class_name!r} of {name!r}, an earlier one"
                f" {pairs[name]!r}"
            )
    return pairs or None


def _split(line: str, images: Container[str]) -> tuple[str, str]:
    """Name and class; a name of `images` may have blanks, and then the longest one counts."""
    separator = next((mark for mark in ("\t", ",") if mark in line), " ")
    first, _, rest = line.partition(separator)
    if separator == " ":
        blanks = [match.start() for match in re.finditer(" ", line)]
        ends = (end for end in reversed(blanks) if line[:end] in images)
        end = next(ends, len(first))
        first, rest = line[:end], line[end:]
    rest = rest.strip()
    boxes = _BOXES.fullmatch(rest)
    return first.strip(), boxes[1] if boxes else rest


def _read_lines(path: str) -> list[str]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"--labels={path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"--labels={path} is not a text file in UTF-8") from None
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if not lines:
        raise UserError(f"--labels={path} is empty")
    if "" in lines:
        raise UserError(f"--labels={path}: line {lines.index('') + 1} is empty")
    return lines


def _require_sensible(path: str, classes: set[str]) -> None:
    odd = sorted(name for name in classes if "/" in name or name.startswith("."))
    if odd:
        raise UserError(
            f"--labels={path}: {odd[0]!r} cannot be a class: it has a '/' or begins with a '.'"
        )
    synsets = {name for name in classes if _SYNSET.fullmatch(name)}
    unknown = sorted(synsets - set(imagenet_synsets()))
    # Where most are strange they are another set's, ImageNet-21k's for example.
    if unknown and 2 * len(unknown) < len(synsets):
        raise UserError(
            f"--labels={path}: {enumerate_names(unknown)} are not among ImageNet's 1,000 synsets"
        )
