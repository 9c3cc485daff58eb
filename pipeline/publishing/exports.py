"""Exports that may be published: the parity gate was passed, and nothing has changed since."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import stat
from typing import Any

from common import files
from common.errors import UserError
from pipeline.formats import MANIFEST
from pipeline.publishing.manifest import MANIFEST as VERSION_MANIFEST
from pipeline.publishing.manifest import FileEntry, content_sha256, json_object

_EXPORT_AGAIN = "export it again with python -m pipeline.export"
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Export:
    """An export that has been looked through.

    Attributes:
        directory: where it lies on this machine.
        summary: what its export.json says.
        files: all of it, sorted by path.
    """

    directory: str
    summary: dict[str, Any]
    files: tuple[FileEntry, ...]

    @property
    def content_sha256(self) -> str:
        return content_sha256(self.files)


def read_export(directory: str, shown_as: str) -> Export:
    """Hashes every file of an export and holds it against export.json.

    Args:
        directory: a local directory.
        shown_as: what messages call it.

    Raises:
        UserError: it is no export, has not passed the parity gate, or is not what passed it.
    """
    manifest = os.path.join(directory, MANIFEST)
    if not os.path.isfile(manifest):
        raise UserError(f"{shown_as} holds no {MANIFEST}: name the --export_dir of pipeline.export")
    summary = json_object(files.read_bytes(manifest), f"{shown_as}/{MANIFEST}")
    _require_parity(summary, shown_as)
    hashes = _recorded_hashes(summary, shown_as)
    names = _regular_files(directory, shown_as)
    _require_no_strays(names, tuple(hashes), shown_as)
    entries = tuple(_entry(directory, name) for name in names)
    for path, expected in hashes.items():
        found = files.fingerprint(os.path.join(directory, path))
        if found is None:
            raise UserError(f"{shown_as}/{path} is missing, but {MANIFEST} has it: {_EXPORT_AGAIN}")
        if found != expected:
            raise _changed(f"{shown_as}/{path}")
    return Export(directory, summary, entries)


def _require_parity(summary: dict[str, Any], shown_as: str) -> None:
    parity = summary.get("parity")
    if not isinstance(parity, dict) or parity.get("passed") is not True:
        raise UserError(
            f"{shown_as} has not passed the parity gate ({MANIFEST} does not say so):"
            f" {_EXPORT_AGAIN}"
        )


def _recorded_hashes(summary: dict[str, Any], shown_as: str) -> dict[str, str]:
    """SHA-256 of each artifact, and of each file that is listed beside them, by its path."""
    try:
        rows = [*summary["artifacts"], *summary.get("files", [])]
        hashes = {row["path"]: row["sha256"] for row in rows}
        inside = all(map(_is_inside, hashes))
    except (KeyError, TypeError, AttributeError):
        hashes, inside = {}, False
    if not hashes or not inside:
        raise UserError(f"{shown_as}/{MANIFEST} lists no artifacts of its own: {_EXPORT_AGAIN}")
    return hashes


def _is_inside(path: str) -> bool:
    plain = posixpath.normpath(path) == path and "\\" not in path
    return plain and not path.startswith(("/", "..")) and path != "."


def _regular_files(directory: str, shown_as: str) -> list[str]:
    """Paths of all files; a link might lead anywhere, so that none is followed.

    The manifest of a version is left out, so that a version can be published on to another place.
    """
    names = []
    for above, subdirectories, here in os.walk(directory):
        for name in [*subdirectories, *here]:
            path = os.path.join(above, name)
            mode = os.lstat(path).st_mode
            relative = os.path.relpath(path, directory).replace(os.sep, "/")
            if stat.S_ISREG(mode):
                names.append(relative)
            elif not stat.S_ISDIR(mode):
                raise UserError(f"{shown_as}/{relative} is no plain file: {_EXPORT_AGAIN}")
    return sorted(name for name in names if name != VERSION_MANIFEST)


def _require_no_strays(names: list[str], listed: tuple[str, ...], shown_as: str) -> None:
    stray = [
        name
        for name in names
        if name not in (MANIFEST, *listed)
        and not name.startswith(tuple(f"{path}/" for path in listed))
    ]
    if stray:
        more = f" and {len(stray) - _SHOWN} more" if len(stray) > _SHOWN else ""
        raise UserError(
            f"{shown_as} holds {', '.join(stray[:_SHOWN])}{more}, which {MANIFEST} does not list:"
            f" remove what is no part of the export, or {_EXPORT_AGAIN}"
        )


def _changed(path: str) -> UserError:
    return UserError(f"{path} has changed since the parity gate: {_EXPORT_AGAIN}")


def _entry(directory: str, name: str) -> FileEntry:
    path = os.path.join(directory, name)
    return FileEntry(
        name, os.path.getsize(path), files.crc32c_of_file(path), files.sha256_of_file(path)
    )
