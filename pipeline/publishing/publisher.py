"""The way of an export into a version: take a number, send the files, look at them, make it whole.

A reader never sees half a version: the manifest comes after the files, LATEST after the manifest,
aliases after LATEST. Whoever kills a publisher leaves files that nothing points to, and the next
run for the same export goes on with them.
"""

from __future__ import annotations

import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor

from common import files
from common.errors import UsageError, UserError
from common.progress import Progress
from pipeline.publishing.exports import Export
from pipeline.publishing.manifest import FileEntry, VersionManifest
from pipeline.publishing.pointers import move_latest, now
from pipeline.publishing.store import Held, Store, VersionState

# How often files that have come to nothing, or to something else, are sent again.
_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What publishing an export came to.

    Attributes:
        manifest: of the version that the export is now.
        was_there: whether it was that version already.
        latest: the version that LATEST names.
        num_sent, bytes_sent: files that were transferred.
        seconds: how long that took.
    """

    manifest: VersionManifest
    was_there: bool
    latest: int
    num_sent: int
    bytes_sent: int
    seconds: float


def publish_export(store: Store, export: Export, wanted: int | None, num_parallel: int) -> Outcome:
    """Makes `export` a version of `store`, and LATEST if no newer one is.

    Args:
        store: the place; its lock must be held.
        export: what is published.
        wanted: the number that it is to have; None for the next one.
        num_parallel: files that are sent at once.

    Raises:
        UsageError: the export is a version of another number than `wanted`.
        UserError: `wanted` holds other content, or the files do not come through whole.
    """
    taken = store.states()
    start = time.monotonic()
    manifest = _whole_version_of(export, taken)
    if manifest:
        if wanted not in (None, manifest.version):
            raise UsageError(
                f"the export is version {manifest.version} of {store.path} already, and cannot be"
                f" {wanted} as well: leave --version out"
            )
        latest = move_latest(store, manifest)
        return Outcome(manifest, True, latest, 0, 0, time.monotonic() - start)
    number = store.claim(export.content_sha256, wanted, taken)
    sent = _send(store, export, number, num_parallel)
    manifest = _manifest(export, number)
    store.commit(manifest)
    latest = move_latest(store, manifest)
    store.clean_up()
    seconds = time.monotonic() - start
    return Outcome(manifest, False, latest, len(sent), sum(e.bytes for e in sent), seconds)


def _whole_version_of(export: Export, taken: list[VersionState]) -> VersionManifest | None:
    same = [state.manifest for state in taken if state.content_sha256 == export.content_sha256]
    return next((manifest for manifest in same if manifest), None)


def _send(store: Store, export: Export, number: int, num_parallel: int) -> list[FileEntry]:
    """Sends files until the place holds all of them with equal checksums; returns those sent."""
    content = export.content_sha256
    held = store.held(number, content)
    to_send = first = _missing(export, held)
    there = sum(entry.bytes for entry in export.files) - sum(entry.bytes for entry in to_send)

    def send(entry: FileEntry) -> FileEntry:
        source = os.path.join(export.directory, *entry.path.split("/"))
        if not os.path.isfile(source):
            raise UserError(f"{source} is gone since the publishing began: export it again")
        store.put(source, number, content, entry.path, held.get(entry.path))
        return entry

    total = sum(entry.bytes for entry in export.files)
    with Progress(total, "B", "publishing", initial=there, unit_scale=True) as progress:
        for number_of_round in range(_ROUNDS):
            with ThreadPoolExecutor(num_parallel) as pool:
                for entry in pool.map(send, to_send):
                    progress.update(entry.bytes if number_of_round == 0 else 0)
            held = store.held(number, content)
            to_send = _missing(export, held)
            if not to_send:
                return first
    raise _not_whole(store, export, number, to_send)


def _missing(export: Export, held: dict[str, Held]) -> list[FileEntry]:
    """What is not there as it should be, the largest first: it would be waited for at the end."""
    missing = [
        entry
        for entry in export.files
        if (there := held.get(entry.path)) is None
        or (there.bytes, there.crc32c) != (entry.bytes, entry.crc32c)
    ]
    return sorted(missing, key=lambda entry: -entry.bytes)


def _not_whole(store: Store, export: Export, number: int, left: list[FileEntry]) -> UserError:
    for entry in left:
        source = os.path.join(export.directory, *entry.path.split("/"))
        if files.crc32c_of_file(source) != entry.crc32c:
            return UserError(f"{source} has changed while it was published: export it again")
    return UserError(
        f"{left[0].path} of version {number} did not come whole to {store.path} in {_ROUNDS}"
        " attempts: nothing points to it; run the same command again"
    )


def _manifest(export: Export, number: int) -> VersionManifest:
    model, metrics = export.summary.get("model"), export.summary.get("metrics")
    config = model.get("config") if isinstance(model, dict) else None
    name = config.get("name") if isinstance(config, dict) else None
    top_1 = metrics.get("top_1") if isinstance(metrics, dict) else None
    return VersionManifest(
        version=number,
        content_sha256=export.content_sha256,
        published=now(),
        model=name if isinstance(name, str) else "",
        top_1=top_1 if isinstance(top_1, (int, float)) else None,
        files=export.files,
    )
