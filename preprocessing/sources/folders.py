"""Images in folders: one folder for each class, or one flat folder with a file of labels."""

from __future__ import annotations

import dataclasses

from common.errors import UserError
from common.files import is_remote, join, list_directory, list_tree
from preprocessing.sources.listing import (
    WHOLE_FILE,
    Listing,
    SourceImage,
    is_hidden,
    make_listing,
    require_text,
)

CLASS_FOLDERS = "class folders"


@dataclasses.dataclass(frozen=True)
class Folder:
    """What lies directly in a folder, hidden names left out: names of folders, sizes of files."""

    folders: tuple[str, ...]
    files: dict[str, int]


def scan_folder(path: str, what: str) -> Folder:
    """Looks into one folder; `what` begins the message if that fails.

    A link that leads nowhere counts as a file: whether it is an image is found out when it is read.

    Raises:
        UserError: it is missing or may not be read.
    """
    try:
        entries = [entry for entry in list_directory(path) if not is_hidden(entry.name)]
    except OSError as error:
        raise UserError(f"{what} cannot be listed: {error.strerror or error}") from None
    return Folder(
        tuple(entry.name for entry in entries if entry.is_directory),
        {entry.name: entry.num_bytes for entry in entries if not entry.is_directory},
    )


def list_class_folders(source: str, top: Folder) -> Listing:
    """Lists `source/class/file`, whatever the files' names end in.

    Raises:
        UserError: the class folders hold no files, or one cannot be listed or is not named in text.
    """
    images: list[SourceImage] = []
    ignored: list[str] = list(top.files)
    classes = sorted(top.folders)
    for name in classes:
        require_text(name, source)
    if is_remote(source):
        _list_bucket(source, set(classes), images, ignored)
    else:
        for name in classes:
            path = join(source, name)
            found = scan_folder(path, f"the class folder {path}")
            ignored += [f"{name}/{folder}" for folder in found.folders]
            images += [
                SourceImage(key := f"{name}/{file}", name, size, key, WHOLE_FILE)
                for file, size in found.files.items()
            ]
    if not images:
        hint = f" (is it --source={join(source, classes[0])}?)" if ignored else ""
        raise UserError(
            f"--source={source}: there are no files in its {len(classes)} class folders{hint}"
        )
    return make_listing(CLASS_FOLDERS, source, classes, images, ignored)


def _list_bucket(
    source: str, classes: set[str], images: list[SourceImage], ignored: list[str]
) -> None:
    """As the walk through local class folders, but in one listing of all that is below."""
    folders = set()
    for path, size in list_tree(source):
        parts = path.split("/")
        if parts[0] not in classes or len(parts) < 2 or is_hidden(parts[1]) or not parts[1]:
            continue
        if len(parts) > 2:
            folders.add(f"{parts[0]}/{parts[1]}")
        else:
            images.append(SourceImage(path, parts[0], size, path, WHOLE_FILE))
    ignored += folders
