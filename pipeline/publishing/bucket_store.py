"""Versions in a bucket, where nothing can be renamed and nobody holds a lock.

A publisher takes a number by writing `versions/N.json`, which succeeds for one only. The file
says which content the number is for, stays, and lets a later run go on with what a killed one
began. Objects of a version are written only where none is, or over one that was seen to be
damaged; its manifest makes it whole.
"""

from __future__ import annotations

import contextlib
import mimetypes
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from common import buckets, files
from common.bucket_client import DamagedError, client, errors_of, retry, until_whole
from common.errors import UserError
from common.listing import Entry
from pipeline.publishing.manifest import MANIFEST, VersionManifest, json_bytes, json_object
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

_NUMBER = re.compile(r"(\d+)(?:\.json)?")  # of a version's directory or its claim
_CONTENT = "content_sha256"
_READERS = 16
_ABSENT = 0  # the generation of an object that is not there
# Answers to an upload after which `held` tells what is still to be done: the service has forgotten
# an upload that it had begun (404 or 410), or the object is there by now (412), be it another
# publisher's, or ours with a lost answer.
_TO_BE_LOOKED_AT = (404, 410, 412)


class BucketStore:
    """See `Store`."""

    def __init__(self, path: str):
        self.path = path
        self._bucket, self._prefix = buckets.split(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def states(self) -> list[VersionState]:
        # A directory without a claim is somebody else's: its number is taken all the same.
        matches = (_NUMBER.fullmatch(entry.name) for entry in self._listed(VERSIONS))
        numbers = sorted({int(match.group(1)) for match in matches if match})
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._state, numbers))

    def claim(self, content: str, wanted: int | None, taken: list[VersionState]) -> int:
        begun = {state.number: state.content_sha256 for state in taken}
        same = [number for number, other in begun.items() if other == content]
        if wanted is not None and begun.get(wanted, content) != content:
            raise of_other_content(self.path, wanted)
        if wanted is None and same:
            return same[-1]
        number = next_number(taken) if wanted is None else wanted
        while True:
            claim = json_bytes({_CONTENT: content})
            if self.write(f"{VERSIONS}/{number}.json", claim, None):
                return number
            # Somebody has it by now: perhaps for the same, or it was our own request, whose answer
            # was lost on the way.
            if self._claimed(number) == content:
                return number
            if wanted is not None:
                raise of_other_content(self.path, wanted)
            number += 1

    def held(self, number: int, content: str) -> dict[str, Held]:
        directory = f"{self._full(version_path(number))}/"
        with errors_of(self.path):
            listing = client().list_blobs(
                self._bucket,
                prefix=directory,
                fields="items(name,size,crc32c,generation),nextPageToken",
                retry=retry(),
            )
            return {
                blob.name.removeprefix(directory): Held(blob.size, blob.crc32c, blob.generation)
                for blob in listing
            }

    def put(self, source: str, number: int, content: str, path: str, before: Held | None) -> None:
        from google.api_core.exceptions import GoogleAPICallError
        from google.cloud.storage.exceptions import DataCorruption

        name = version_path(number, path)
        blob = self._blob(name)
        with errors_of(files.join(self.path, name)):
            try:
                blob.upload_from_filename(
                    source,
                    content_type=mimetypes.guess_type(path)[0] or "application/octet-stream",
                    checksum="crc32c",
                    if_generation_match=before.generation if before else _ABSENT,
                    retry=retry(),
                )
            except DataCorruption:
                pass  # what came is not what was sent, and `held` will tell
            except GoogleAPICallError as error:
                if error.code not in _TO_BE_LOOKED_AT:
                    raise

    def commit(self, manifest: VersionManifest) -> None:
        name = version_path(manifest.version, MANIFEST)
        if self.write(name, manifest.to_bytes(), None):
            return
        there = read_manifest(self, manifest.version)
        if there is None or there.files != manifest.files:
            raise UserError(
                f"{files.join(self.path, name)} is not what was sent: run the same command again"
            )

    def clean_up(self) -> None:
        """Leaves all as it is: what is not whole may be another publisher's at work."""

    def read(self, name: str) -> Small | None:
        from google.api_core.exceptions import NotFound

        def whole() -> Small | None:
            blob = self._blob(name)
            try:
                blob.reload(retry=retry())
            except NotFound:
                return None
            try:
                content = self._blob(name, blob.generation).download_as_bytes(
                    raw_download=True, checksum=None, retry=retry()
                )
            except NotFound:
                raise DamagedError("it was replaced while it was read") from None
            if buckets.printed_crc32c(buckets.crc32c_of_bytes(content)) != blob.crc32c:
                raise DamagedError(f"{len(content):,} bytes came that are not the object's")
            return Small(content, blob.generation)

        with errors_of(files.join(self.path, name)):
            return until_whole(whole)

    def write(self, name: str, content: bytes, before: Small | None) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        with errors_of(files.join(self.path, name)):
            try:
                self._blob(name).upload_from_string(
                    content,
                    content_type="application/json",
                    checksum="crc32c",
                    if_generation_match=before.generation if before else _ABSENT,
                    retry=retry(),
                )
            except PreconditionFailed:
                return False
        return True

    def names(self, directory: str) -> list[str]:
        return [entry.name for entry in self._listed(directory) if not entry.is_directory]

    def _listed(self, directory: str) -> list[Entry]:
        try:
            return buckets.list_directory(files.join(self.path, directory))
        except FileNotFoundError:
            self._require_bucket()
            return []

    def _state(self, number: int) -> VersionState:
        manifest = read_manifest(self, number)
        content = manifest.content_sha256 if manifest else self._claimed(number) or ""
        return VersionState(number, content, manifest)

    def _claimed(self, number: int) -> str | None:
        """Hash of the content that a number was taken for; None if nobody has taken it.

        Raises:
            UserError: whoever took it does not say.
        """
        name = f"{VERSIONS}/{number}.json"
        found = self.read(name)
        if found is None:
            return None
        path = files.join(self.path, name)
        content = json_object(found.content, path).get(_CONTENT)
        if not isinstance(content, str):
            raise UserError(f"{path} does not say what version {number} is to hold: remove it")
        return content

    def _require_bucket(self) -> None:
        if not buckets.is_directory(f"{buckets.SCHEME}{self._bucket}"):
            raise UserError(f"there is no bucket {self._bucket}, or you may not see it")

    def _full(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _blob(self, name: str, generation: int | None = None):
        return client().bucket(self._bucket).blob(self._full(name), generation=generation)
