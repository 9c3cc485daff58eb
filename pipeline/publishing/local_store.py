"""Versions in a local directory: gathered under a temporary name, renamed when whole.

One publisher at a time holds the lock of the directory; the system takes it away from one that is
killed. Readers need no lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator

from common import files
from common.errors import UserError
from pipeline.publishing.manifest import MANIFEST, VersionManifest
from pipeline.publishing.store import (
    VERSIONS,
    Held,
    Small,
    VersionState,
    next_number,
    of_other_content,
    read_manifest,
    version_path,
)

_LOCK = ".lock"
_STAGING = f"{files.TEMPORARY_PREFIX}publishing-"
_HASH_DIGITS = 16  # of a content hash in a directory's name


class LocalStore:
    """See `Store`."""

    def __init__(self, path: str):
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Waits for whoever publishes to the same directory just now.

        Raises:
            UserError: the directory cannot be made or written to.
        """
        files.require_writable(self.path, "to")
        with open(os.path.join(self.path, _LOCK), "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logging.info("waiting for another publisher to %s", self.path)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                # A file system without locks: a rename onto a version still fails.
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
            yield

    def states(self) -> list[VersionState]:
        found = []
        for name in self._listed(VERSIONS):
            if name.isdecimal() and (manifest := read_manifest(self, int(name))):
                found.append(VersionState(int(name), manifest.content_sha256, manifest))
        return sorted(found, key=lambda state: state.number)

    def claim(self, content: str, wanted: int | None, taken: list[VersionState]) -> int:
        if wanted is None:
            # A directory that somebody else put there has taken its number too.
            numbers = [int(name) for name in self._listed(VERSIONS) if name.isdecimal()]
            return max([next_number(taken), *(number + 1 for number in numbers)])
        if os.path.lexists(self._full(version_path(wanted))):
            raise of_other_content(self.path, wanted)
        return wanted

    def held(self, number: int, content: str) -> dict[str, Held]:
        staging = self._staging(content)
        if not os.path.isdir(staging):
            return {}
        return {
            name.replace(os.sep, "/"): Held(
                size, files.crc32c_of_file(os.path.join(staging, name)), None
            )
            for name, size in files.list_tree(staging)
            if name != MANIFEST
        }

    def put(self, source: str, number: int, content: str, path: str, before: Held | None) -> None:
        target = os.path.join(self._staging(content), *path.split("/"))
        with open(source, "rb") as reader, files.atomic_write(target) as writer:
            shutil.copyfileobj(reader, writer, files.BLOCK)

    def commit(self, manifest: VersionManifest) -> None:
        staging = self._staging(manifest.content_sha256)
        self._remove_leftovers(staging, manifest)
        files.write_bytes(os.path.join(staging, MANIFEST), manifest.to_bytes())
        try:
            # Fails where there is a version of that number: no rename takes the place of a
            # directory that holds anything.
            os.rename(staging, self._full(version_path(manifest.version)))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise UserError(
                f"another publisher has just taken version {manifest.version} of {self.path}:"
                " run the same command again"
            ) from None

    def clean_up(self) -> None:
        for name in self._listed(VERSIONS):
            if name.startswith(_STAGING):
                shutil.rmtree(self._full(f"{VERSIONS}/{name}"), ignore_errors=True)

    def read(self, name: str) -> Small | None:
        try:
            return Small(files.read_bytes(self._full(name)), None)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes, before: Small | None) -> bool:
        files.write_bytes(self._full(name), content)  # the lock is held
        return True

    def names(self, directory: str) -> list[str]:
        listed = self._listed(directory)
        return [name for name in listed if not name.startswith(files.TEMPORARY_PREFIX)]

    def _full(self, name: str) -> str:
        return os.path.join(self.path, *name.split("/"))

    def _staging(self, content: str) -> str:
        return self._full(f"{VERSIONS}/{_STAGING}{content[:_HASH_DIGITS]}")

    def _listed(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(self._full(directory)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _remove_leftovers(self, staging: str, manifest: VersionManifest) -> None:
        """Removes what a killed publisher was in the middle of copying."""
        known = {entry.path for entry in manifest.files}
        for name, _ in files.list_tree(staging):
            if name.replace(os.sep, "/") not in known:
                os.remove(os.path.join(staging, name))
