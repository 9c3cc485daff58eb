"""Finds out what a source is, and lists it."""

from __future__ import annotations

import os

from common.errors import UserError
from common.files import exists, is_directory, is_remote, join
from preprocessing.sources.folders import Folder, list_class_folders, scan_folder
from preprocessing.sources.labels import label_flat, refuse_labels
from preprocessing.sources.listing import WHOLE_FILE, Listing, SourceImage, make_listing
from preprocessing.sources.tars import (
    TAR,
    class_tars_among,
    list_folder_of_class_tars,
    list_tar,
)

FLAT_FOLDER = "flat folder"
TFDS = "tfds:"


def list_source(
    source: str, split: str, labels: str | None = None, tfds_dir: str | None = None
) -> Listing:
    """Lists the images of a source; nothing is unpacked, and no image is read.

    Args:
        source: a folder of class folders, of images or of class tars; a tar of any of these; or
            `tfds:NAME`.
        split: of a TFDS data set, the split to take.
        labels: for a flat folder or tar, a file with the classes of the images.
        tfds_dir: where TFDS keeps its files.

    Raises:
        UserError: there is nothing that could be listed, or it is damaged.
        UsageError: `labels` is given though the source itself says the classes.
    """
    if source.startswith(TFDS):
        refuse_labels(labels, "TFDS data set")
        # Only this kind needs TensorFlow, to prepare its files.
        from preprocessing.sources.tfds import list_tfds

        return list_tfds(source.removeprefix(TFDS), split, tfds_dir)
    if _is_file(source):
        return list_tar(source, labels)
    top = scan_folder(source, f"--source={source}")
    tars = class_tars_among(top.files)
    if top.folders and tars:
        raise UserError(
            f"--source={source} holds class folders and tars of classes, {top.folders[0]!r} and"
            f" {tars[0]!r} among them: keep only one kind there"
        )
    if top.folders:
        refuse_labels(labels, "folder of class folders")
        return list_class_folders(source, top)
    if tars and not labels:
        return list_folder_of_class_tars(source, top.files)
    return _list_flat_folder(source, top, labels)


def _is_file(source: str) -> bool:
    if is_remote(source):
        return not is_directory(source) and exists(source)
    return os.path.isfile(source)


def _list_flat_folder(source: str, top: Folder, labels: str | None) -> Listing:
    if not top.files:
        raise UserError(
            f"--source={source} holds no class folders: images are expected as"
            f" {join(source, 'CLASS', 'IMAGE')}"
        )
    official = sorted(name for name in top.files if name.endswith(TAR))
    if official and len(official) == len(top.files):
        raise UserError(
            f"--source={source} holds tars: name one, for example"
            f" --source={join(source, official[0])}"
        )
    classes = label_flat(source, list(top.files), labels)
    images = [
        SourceImage(f"{class_name}/{name}", class_name, top.files[name], name, WHOLE_FILE)
        for name, class_name in classes.items()
    ]
    ignored = set(top.files) - set(classes)
    return make_listing(FLAT_FOLDER, source, sorted(set(classes.values())), images, ignored)
