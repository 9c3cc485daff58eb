"""Reads what the report is about: JSON files of other stages, local or in a bucket."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from common import files
from common.errors import UserError, first_line


class ClassNames:
    """What people call a class: its human name where there is one, else the class itself."""

    def __init__(self, names: Mapping[str, str]):
        self._names = names

    @classmethod
    def read(cls, path: str, known: Mapping[str, str]) -> ClassNames:
        """Reads lines of `class<TAB>human name`, which come before the names that are `known`.

        Raises:
            UserError: the file is missing or a line has no tab.
        """
        names = dict(known)
        for number, line in enumerate(read_lines(path, "class_names"), start=1):
            key, tab, name = line.partition("\t")
            if not tab:
                raise UserError(f"--class_names={path}, line {number}: no tab in {line!r}")
            names[key.strip()] = name.strip()
        return cls(names)

    def __call__(self, name: Any) -> str:
        return self._names.get(str(name), str(name))


def read_part(path: str, name: str, flag: str) -> dict[str, Any]:
    """A JSON object, or `{"missing": sentence}` where there is none.

    Args:
        path: a file, or a directory if there is a `name`; empty for none.
        name: of the file in the directory.
        flag: that names the path.
    """
    if not path:
        return {"missing": f"Nothing to show: --{flag} was not given."}
    full = files.join(path, name) if name else path
    if not files.exists(full):
        return {"missing": f"Nothing to show: {full} does not exist."}
    value = files.read_json(full)
    if not isinstance(value, dict):
        raise UserError(f"{full} holds no JSON object: write it again with the step that makes it")
    return value


def last_name(path: str) -> str:
    """What a directory is called, without those above it."""
    return os.path.basename(path.rstrip("/") if files.is_remote(path) else os.path.abspath(path))


def read_lines(path: str, flag: str) -> list[str]:
    """The lines of a text file that are not empty; none of an empty path.

    Raises:
        UserError: it cannot be read.
    """
    if not path:
        return []
    try:
        lines = files.read_bytes(path).decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--{flag}={path} cannot be read: {reason}") from None
    # Other signs that end a line for Python may be in a name.
    return [line.rstrip("\r") for line in lines if line.strip()]


@contextlib.contextmanager
def written_by(command: str, path: str) -> Iterator[None]:
    """Says of a file with other content than a stage writes what it is, instead of a traceback.

    Raises:
        UserError: the block stumbled over the content of `path`.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(
            f"{path} is not as {command} writes it ({type(error).__name__}: {first_line(error)}):"
            " write it again"
        ) from error
