"""What lies in a local directory."""

from __future__ import annotations

import os
from typing import NamedTuple


class Entry(NamedTuple):
    """One name in a directory; a directory has no bytes of its own."""

    name: str
    is_directory: bool
    num_bytes: int


def list_directory(path: str) -> list[Entry]:
    """What is in a directory, sorted by name, links followed.

    A link that leads nowhere is a file of no bytes: whoever reads it finds out that it cannot be.
    """
    with os.scandir(path) as entries:
        return sorted(map(_entry, entries))


def list_tree(path: str) -> list[tuple[str, int]]:
    """Every file below a directory, as sorted (path relative to it, bytes), links followed."""
    found: list[tuple[str, int]] = []
    _gather(path, "", (), found)
    return sorted(found)


def _entry(entry: os.DirEntry[str]) -> Entry:
    try:
        if entry.is_dir():
            return Entry(entry.name, True, 0)
        return Entry(entry.name, False, entry.stat().st_size)
    except OSError:
        return Entry(entry.name, False, 0)


def _gather(
    root: str, below: str, above: tuple[tuple[int, int], ...], found: list[tuple[str, int]]
) -> None:
    directory = os.path.join(root, below) if below else root
    status = os.stat(directory)
    identity = (status.st_dev, status.st_ino)
    if identity in above:  # a link to a directory that it lies in
        return
    for entry in list_directory(directory):
        relative = os.path.join(below, entry.name)
        if entry.is_directory:
            _gather(root, relative, (*above, identity), found)
        else:
            found.append((relative, entry.num_bytes))
