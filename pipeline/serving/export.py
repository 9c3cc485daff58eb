"""Finds the SavedModel of an export, wherever it lies."""

from __future__ import annotations

import dataclasses
from typing import Any

from common import files
from common.errors import UserError
from pipeline.formats import MANIFEST, PATHS, SAVED_MODEL
from pipeline.publishing.pointers import LATEST_FILE, resolve

_SAVED_MODEL_FILE = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class FoundExport:
    """An export that can be served.

    Attributes:
        path: its directory, local or in a bucket.
        saved_model: the directory of its SavedModel.
        summary: what its `export.json` says; empty for a bare SavedModel.
    """

    path: str
    saved_model: str
    summary: dict[str, Any]


def find_export(path: str, version: str) -> FoundExport:
    """Finds the SavedModel in an export, in a published version, or at `path` itself.

    Args:
        path: an export, a place that exports are published to, or a SavedModel.
        version: 'latest', an alias or a number, for a place that exports are published to.

    Raises:
        UserError: there is none.
    """
    if not files.is_directory(path):
        raise UserError(f"--export_dir={path} is no directory: give one that pipeline.export wrote")
    if files.exists(files.join(path, LATEST_FILE)):
        path = resolve(path, version).path
    places = (files.join(path, PATHS[SAVED_MODEL]), path)
    for place in places:
        if files.exists(files.join(place, _SAVED_MODEL_FILE)):
            return FoundExport(path, place, _summary(path))
    raise UserError(
        f"--export_dir={path} holds no SavedModel: export one with pipeline.export"
        f" --formats={SAVED_MODEL}"
    )


def _summary(path: str) -> dict[str, Any]:
    manifest = files.join(path, MANIFEST)
    summary = files.read_json(manifest) if files.exists(manifest) else {}
    if not isinstance(summary, dict):
        raise UserError(f"{manifest} holds no JSON object: export again with pipeline.export")
    return summary
