"""What publishing needs of a place, be it a directory or a bucket."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, NamedTuple, Protocol

from common import files
from common.errors import UserError
from pipeline.publishing.manifest import MANIFEST, VersionManifest

VERSIONS = "versions"


@dataclasses.dataclass(frozen=True)
class VersionState:
    """A number that is taken.

    Attributes:
        number: the version.
        content_sha256: hash of what it holds, or is to hold; '' where nobody knows.
        manifest: None while not all of it is there.
    """

    number: int
    content_sha256: str
    manifest: VersionManifest | None


class Small(NamedTuple):
    """A small file, read whole, and which of its generations that is."""

    content: bytes
    generation: Any


class Held(NamedTuple):
    """A file of a version as the place holds it."""

    bytes: int
    crc32c: str
    generation: Any


class Store(Protocol):
    """A place of versions; names are relative to it."""

    path: str

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other publishers out, where the place cannot tell them apart by itself."""

    def states(self) -> list[VersionState]:
        """All numbers that are taken, in ascending order."""

    def claim(self, content: str, wanted: int | None, taken: list[VersionState]) -> int:
        """Takes a number for a content hash: `wanted`, or one that is free.

        Where it is told that another publisher has just taken a number for the same content, it
        joins that one.

        Raises:
            UserError: `wanted` is taken by other content.
        """

    def held(self, number: int, content: str) -> dict[str, Held]:
        """What has come so far of a version that is not whole, by path."""

    def put(self, source: str, number: int, content: str, path: str, before: Held | None) -> None:
        """Sends a local file to its place in a version, over what lay there `before`.

        It may silently fail to: who wants to know looks at `held` again.
        """

    def commit(self, manifest: VersionManifest) -> None:
        """Makes a version whole: readers see it from now on."""

    def clean_up(self) -> None:
        """Removes what publishers that were killed have left and nobody can want."""

    def read(self, name: str) -> Small | None:
        """A small file; None if there is none."""

    def write(self, name: str, content: bytes, before: Small | None) -> bool:
        """Writes a small file, unless it is another than `before` by now; says whether it did."""

    def names(self, directory: str) -> list[str]:
        """Names of the files in a directory, sorted; none if it is not there."""


def version_path(number: int, *names: str) -> str:
    return "/".join([VERSIONS, str(number), *names])


def read_manifest(store: Store, number: int) -> VersionManifest | None:
    """The manifest of a version; None if the version is not there, or not whole.

    Raises:
        UserError: it is no manifest, or another version's.
    """
    name = version_path(number, MANIFEST)
    found = store.read(name)
    if found is None:
        return None
    manifest = VersionManifest.from_bytes(found.content, files.join(store.path, name))
    if manifest.version != number:
        raise UserError(f"{files.join(store.path, name)} is of version {manifest.version}")
    return manifest


def next_number(taken: list[VersionState]) -> int:
    return max((state.number for state in taken), default=0) + 1


def of_other_content(path: str, number: int) -> UserError:
    return UserError(
        f"version {number} of {path} holds another export, and versions never change:"
        " leave --version out, or give a number that is free"
    )
