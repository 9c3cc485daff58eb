"""Where images come from: a folder with one folder of images for each class."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator

from common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a tree of class folders holds.

    Attributes:
        folders: names of the class folders, sorted, empty ones among them.
        images: `(key, folder, bytes)` of every file, sorted by key; the key is `folder/file`.
        ignored_folders: folders inside class folders, which nothing is taken from.
    """

    folders: tuple[str, ...]
    images: list[tuple[str, str, int]]
    ignored_folders: tuple[str, ...]


def list_class_folders(input_dir: str) -> Listing:
    """Lists `input_dir/class/file`; hidden names (`.DS_Store`) are passed over.

    Every file counts, whatever its name ends in, and so does a link that leads nowhere: whether it
    is an image is found out when it is read.

    Raises:
        UserError: the folder is missing, or there are no class folders or no files in them.
    """
    folders, images, ignored = [], [], []
    other_files = 0
    with _scan(input_dir, f"--input_dir={input_dir}") as entries:
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.name)
            else:
                other_files += 1
    if not folders:
        what = f"{other_files} files but no" if other_files else "no"
        raise UserError(
            f"--input_dir={input_dir} holds {what} class folders: images are expected as"
            f" {os.path.join(input_dir, 'CLASS', 'IMAGE')}"
        )
    for folder in folders:
        _require_text(folder, input_dir)
        path = os.path.join(input_dir, folder)
        with _scan(path, f"the class folder {path}") as entries:
            for entry in entries:
                key = f"{folder}/{entry.name}"
                if entry.is_dir():
                    ignored.append(key)
                elif entry.is_file() or entry.is_symlink():
                    images.append((key, folder, _size(entry)))
    if not images:
        hint = f" (is it --input_dir={os.path.join(input_dir, folders[0])}?)" if ignored else ""
        raise UserError(
            f"--input_dir={input_dir}: there are no files in its {len(folders)} class folders{hint}"
        )
    return Listing(tuple(sorted(folders)), sorted(images), tuple(sorted(ignored)))


def _require_text(folder: str, input_dir: str) -> None:
    """A class name goes into text files, which a file's name need not."""
    try:
        folder.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"--input_dir={input_dir}: the name of the class folder {folder!r} is not UTF-8:"
            " rename it"
        ) from None


@contextlib.contextmanager
def _scan(path: str, what: str) -> Iterator[Iterator[os.DirEntry]]:
    try:
        scan = os.scandir(path)
    except OSError as error:
        raise UserError(f"{what} cannot be listed: {error.strerror}") from None
    with scan as entries:
        yield (entry for entry in entries if not entry.name.startswith("."))


def _size(entry: os.DirEntry) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0
