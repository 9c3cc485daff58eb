"""Images in tars, read where they lie: the official ones, and any that holds class folders.

    ILSVRC2012_img_train.tar    a tar of class tars, nXXXXXXXX.tar, which hold the images
    ILSVRC2012_img_val.tar      the images themselves; their classes come from a file of labels
    any other                   CLASS/IMAGE, or FOLDER/CLASS/IMAGE with one and the same FOLDER

A folder of class tars, what unpacking the first leaves, is taken likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from common.errors import UserError
from common.files import is_remote, join
from common.progress import Progress
from preprocessing.sources.labels import are_official_names, label_flat, refuse_labels
from preprocessing.sources.listing import Listing, SourceImage, make_listing, require_text
from preprocessing.sources.parallel import map_files
from preprocessing.sources.tar_members import Members, read_members
from preprocessing.sources.views import BLOCKS_AHEAD, open_view

TAR_OF_CLASS_TARS = "tar of class tars"
TAR_OF_CLASS_FOLDERS = "tar of class folders"
FLAT_TAR = "flat tar"
FOLDER_OF_CLASS_TARS = "folder of class tars"

TAR = ".tar"
_COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


class ClassTar(NamedTuple):
    """One class tar: the file that it lies in, as listed and to be opened, and where in it."""

    class_name: str
    path: str
    opened: str
    start: int
    size: int


def list_tar(source: str, labels: str | None) -> Listing:
    """Lists a tar of class tars, of class folders, or of images that `labels` tells the classes of.

    Raises:
        UserError: it is no tar, is compressed, cut or damaged, or holds no images.
    """
    name = f"--source={source}"
    with (
        open_view(source, name, BLOCKS_AHEAD) as view,
        Progress(view.size, "B", "listing the tar", unit_scale=True) as progress,
    ):
        members = read_members(view, 0, view.size, name, progress.update)
    members = _without_common_folder(members, bool(labels))
    if any(map(_is_class_tar, members.files)):
        tars = [
            ClassTar(_class_of(name), "", source, *members.files[name])
            for name in sorted(members.files)
            if _is_class_tar(name)
        ]
        refuse_labels(labels, TAR_OF_CLASS_TARS)
        return _list_class_tars(TAR_OF_CLASS_TARS, source, tars)
    compressed = sorted(name for name in members.files if name.endswith(_COMPRESSED))
    if compressed:
        raise UserError(
            f"--source={source} holds compressed tars ({compressed[0]!r}), in which images cannot"
            " be read where they lie: unpack it, and decompress them"
        )
    if any("/" in name for name in members.files):
        refuse_labels(labels, TAR_OF_CLASS_FOLDERS)
        return _list_folders_in_tar(source, members)
    if not members.files:
        raise UserError(f"--source={source}: there are no files in this tar")
    named = label_flat(source, list(members.files), labels)
    images = [
        SourceImage(f"{class_name}/{name}", class_name, size, "", offset)
        for name, class_name in named.items()
        for offset, size in (members.files[name],)
    ]
    ignored = {*members.files, *members.others} - named.keys()
    return make_listing(FLAT_TAR, source, sorted(set(named.values())), images, ignored)


def class_tars_among(files: Iterable[str]) -> list[str]:
    """Names of the class tars in a folder; the official tars may lie beside them."""
    return sorted(name for name in files if _is_class_tar(name) and not _is_official(name))


def list_folder_of_class_tars(source: str, files: dict[str, int]) -> Listing:
    """Lists a folder in which each class is a tar.

    Raises:
        UserError: a tar is compressed, cut or damaged, or there are no images.
    """
    names = class_tars_among(files)
    tars = [ClassTar(_class_of(name), name, join(source, name), 0, files[name]) for name in names]
    return _list_class_tars(FOLDER_OF_CLASS_TARS, source, tars, set(files) - set(names))


def _is_class_tar(name: str) -> bool:
    return name.endswith(TAR) and "/" not in name


def _is_official(name: str) -> bool:
    return name.startswith("ILSVRC2012_")


def _class_of(name: str) -> str:
    return name.removesuffix(TAR)


def _list_class_tars(
    kind: str, source: str, tars: list[ClassTar], other_files: Iterable[str] = ()
) -> Listing:
    for tar in tars:
        require_text(tar.class_name, source)
    images: list[SourceImage] = []
    ignored = list(other_files)
    num_bytes = sum(tar.size for tar in tars)
    found = map_files(
        read_class_tar, tars, num_bytes, is_remote(source), "class", f"listing {len(tars)} tars"
    )
    for tar, (files, others) in zip(tars, found, strict=True):
        ignored += [f"{tar.class_name}/{name}" for name in others]
        images += [
            SourceImage(f"{tar.class_name}/{name}", tar.class_name, size, tar.path, offset)
            for name, offset, size in files
        ]
    if not images:
        raise UserError(f"--source={source}: there are no files in its {len(tars)} class tars")
    return make_listing(kind, source, [tar.class_name for tar in tars], images, ignored)


def read_class_tar(tar: ClassTar) -> tuple[list[tuple[str, int, int]], list[str]]:
    """`(name, offset, bytes)` of the files in a class tar, and what is passed over in it.

    Raises:
        UserError: it is compressed, cut or damaged.
    """
    name = tar.opened if tar.path else f"{tar.opened}: {tar.class_name}{TAR}"
    with open_view(tar.opened, name) as view:
        size = view.size if tar.path else tar.size
        members = read_members(view, tar.start, size, name)
    files, others = [], set(members.others)
    for name, (offset, size) in members.files.items():
        # Some tars hold the class folder, others what is in it.
        below = name.removeprefix(f"{tar.class_name}/")
        if "/" in below:
            others.add(below.partition("/")[0])
        else:
            files.append((below, offset, size))
    return files, sorted(others)


def _list_folders_in_tar(source: str, members: Members) -> Listing:
    classes = {name.partition("/")[0] for name in members.files if "/" in name}
    classes |= {name for name in members.folders if "/" not in name}
    for name in sorted(classes):
        require_text(name, source)
    images, ignored = [], {name for name in members.others if "/" in name}
    for key, (offset, size) in members.files.items():
        class_name, _, file = key.partition("/")
        if "/" in file:
            ignored.add(f"{class_name}/{file.partition('/')[0]}")
        elif file:
            images.append(SourceImage(key, class_name, size, "", offset))
    ignored |= {name for name in members.folders if name.count("/") == 1}
    if not images:
        raise UserError(
            f"--source={source}: there are no files in its {len(classes)} class folders: images"
            " are expected as CLASS/IMAGE"
        )
    return make_listing(TAR_OF_CLASS_FOLDERS, source, sorted(classes), images, ignored)


def _without_common_folder(members: Members, has_labels: bool) -> Members:
    """Names without the one folder that all files lie in, where that is not a class."""
    while members.files:
        parts = [name.split("/") for name in members.files]
        depth = min(map(len, parts))
        if depth < 2 or len({part[0] for part in parts}) > 1:
            break
        if depth == 2 and not has_labels:
            names = [part[-1] for part in parts]
            if not all(map(_is_class_tar, names)) and not are_official_names(names):
                break
        prefix = f"{parts[0][0]}/"
        members = Members(
            {name.removeprefix(prefix): place for name, place in members.files.items()},
            list(_below(members.folders, prefix)),
            list(_below(members.others, prefix)),
        )
    return members


def _below(names: list[str], prefix: str) -> Iterator[str]:
    return (name.removeprefix(prefix) for name in names if name.startswith(prefix))
