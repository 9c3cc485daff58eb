"""Names that lead to versions: LATEST, and aliases that can be moved."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from common import files
from common.errors import UsageError, UserError
from pipeline.publishing.manifest import MANIFEST, VersionManifest, json_bytes, json_object
from pipeline.publishing.places import open_store
from pipeline.publishing.store import Store, read_manifest, version_path

LATEST = "latest"
LATEST_FILE = "LATEST.json"
_ALIASES = "aliases"
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Published:
    """A whole version.

    Attributes:
        path: its directory, local or in a bucket.
        manifest: what it holds.
    """

    path: str
    manifest: VersionManifest

    @property
    def version(self) -> int:
        return self.manifest.version


def resolve(to: str, name: str | int = LATEST) -> Published:
    """Finds a whole version in a place that `pipeline.publish` writes to.

    Args:
        to: the place, a local directory or `gs://BUCKET/NAME`.
        name: 'latest', an alias, or the number of a version.

    Raises:
        UserError: there is no such version; the message says which names there are.
    """
    store = open_store(to)
    number = int(name) if str(name).isdecimal() else pointed_at(store, str(name))
    manifest = read_manifest(store, number) if number is not None else None
    if manifest is None:
        raise UserError(f"{to} has no version {name!s}: {_what_there_is(store)}")
    return Published(files.join(to, *version_path(number).split("/")), manifest)


def require_alias(name: str) -> None:
    """Makes sure that a name can be an alias.

    Raises:
        UsageError: it can not.
    """
    if not _ALIAS.fullmatch(name) or name.isdecimal() or name.lower() == LATEST:
        raise UsageError(
            f"--alias={name} is no name for a version: letters, digits, '.', '_' and '-' make one,"
            f" but no number, and not {LATEST!r}"
        )


def pointed_at(store: Store, name: str) -> int | None:
    """The version that 'latest' or an alias names; None if there is no such name."""
    return _version_in(store, _file_of(name)) if name == LATEST or _ALIAS.fullmatch(name) else None


def aliases(store: Store) -> dict[str, int]:
    """Version by alias, sorted by alias."""
    names = [name.removesuffix(".json") for name in store.names(_ALIASES)]
    found = {name: _version_in(store, _file_of(name)) for name in names}
    return {name: number for name, number in found.items() if number is not None}


def move_latest(store: Store, manifest: VersionManifest) -> int:
    """Has LATEST name a version, unless it names a newer one; says which it names now."""
    return _move(store, LATEST_FILE, manifest, lambda before: before < manifest.version)


def move_alias(store: Store, alias: str, manifest: VersionManifest) -> int | None:
    """Has an alias name a version; says which it named before."""
    before = pointed_at(store, alias)
    _move(store, _file_of(alias), manifest, lambda before: before != manifest.version)
    return before


def _move(
    store: Store, name: str, manifest: VersionManifest, is_to_move: Callable[[int], bool]
) -> int:
    while True:
        found = store.read(name)
        before = _number(store, name, found.content) if found else None
        if before is not None and not is_to_move(before):
            return before
        pointer = {
            "version": manifest.version,
            "path": version_path(manifest.version),
            "manifest": version_path(manifest.version, MANIFEST),
            "content_sha256": manifest.content_sha256,
            "previous": before,
            "moved": now(),
        }
        if store.write(name, json_bytes(pointer), found):
            return manifest.version


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _file_of(name: str) -> str:
    return LATEST_FILE if name == LATEST else f"{_ALIASES}/{name}.json"


def _version_in(store: Store, name: str) -> int | None:
    found = store.read(name)
    return _number(store, name, found.content) if found else None


def _number(store: Store, name: str, content: bytes) -> int:
    path = files.join(store.path, name)
    number: Any = json_object(content, path).get("version")
    if not isinstance(number, int):
        raise UserError(f"{path} names no version: publish again with that name, or remove it")
    return number


def _what_there_is(store: Store) -> str:
    whole = [str(state.number) for state in store.states() if state.manifest]
    if not whole:
        return "nothing is published there"
    return f"it has {', '.join([*whole, *aliases(store)])}"
