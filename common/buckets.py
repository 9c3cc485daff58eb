"""Files in Cloud Storage, by their names `gs://BUCKET/NAME`; `common.files` is the way in.

An object is written whole or not at all, and what is read is checked: a body that ends early or
does not fit its checksum is fetched again, and never handed on.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import itertools
import mimetypes
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO

from common.bucket_client import DamagedError, client, errors_of, retry, until_whole
from common.errors import UsageError
from common.listing import Entry

if TYPE_CHECKING:
    from google.cloud import storage

SCHEME = "gs://"
LISTING_THREADS = 16

# A reader fetches this much at a time: a request takes tens of milliseconds, whatever its size.
READ_AHEAD = 8 << 20


def split(path: str) -> tuple[str, str]:
    """Bucket and name of 'gs://BUCKET/NAME'; the name of a bucket itself is ''."""
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise UsageError(f"{path} names no bucket: write gs://BUCKET/NAME")
    if not (bucket[0].isalnum() and bucket[-1].isalnum()):
        raise UsageError(f"{path}: the name of a bucket begins and ends with a letter or digit")
    return bucket, name


def crc32c_of_bytes(content: bytes, before: int = 0) -> int:
    """CRC32C of `content`, going on from that of what came before it."""
    import google_crc32c

    return google_crc32c.extend(before, content)


def printed_crc32c(checksum: int) -> str:
    """A CRC32C as Cloud Storage prints it."""
    return base64.b64encode(checksum.to_bytes(4, "big")).decode("ascii")


def open_for_reading(path: str, buffering: int = -1) -> BinaryIO:
    with errors_of(path):
        blob = _metadata(path)
    raw = _ObjectReader(path, blob.size, blob.generation)
    return io.BufferedReader(raw, buffering if buffering > 0 else READ_AHEAD)


def read_bytes(path: str) -> bytes:
    def whole() -> bytes:
        blob = _blob(path)
        content = blob.download_as_bytes(raw_download=True, checksum=None, retry=retry())
        if blob.crc32c is None:  # the answer of a download that was interrupted does not tell it
            blob.reload(retry=retry())
        if printed_crc32c(crc32c_of_bytes(content)) != blob.crc32c:
            raise DamagedError(f"{len(content):,} bytes came that are not the object's")
        return content

    with errors_of(path):
        return until_whole(whole)


def read_range(path: str, offset: int, length: int, generation: int | None = None) -> bytes:
    """The bytes from `offset` on; fewer than `length` only where the object ends."""
    from google.api_core.exceptions import RequestRangeNotSatisfiable

    if length <= 0:
        return b""
    last = offset + length - 1

    def part() -> bytes:
        blob = _blob(path, generation)
        try:
            content = blob.download_as_bytes(
                start=offset, end=last, raw_download=True, checksum=None, retry=retry()
            )
        except RequestRangeNotSatisfiable:  # the object ends before
            content = b""
        if len(content) < length:
            blob.reload(retry=retry())
            if len(content) < min(length, blob.size - offset):
                raise DamagedError(f"{len(content):,} bytes came of {length:,}")
        return content

    with errors_of(path):
        return until_whole(part)


@contextlib.contextmanager
def atomic_write(path: str, buffering: int = -1) -> Iterator[BinaryIO]:
    """Opens a local file that is sent to `path` when the block ends without an error."""
    name = split(path)[1]
    handle, temporary = tempfile.mkstemp(prefix="mobilenet-upload-")
    try:
        with os.fdopen(handle, "wb", buffering) as file:
            yield file
        content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        with errors_of(path):
            until_whole(
                lambda: _blob(path).upload_from_filename(
                    temporary, content_type=content_type, checksum="crc32c", retry=retry()
                )
            )
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = temporary  # the disk that is full is the local one
        raise
    finally:
        os.remove(temporary)


def exists(path: str) -> bool:
    """Whether there is an object of that name, or any below it."""
    if split(path)[1]:
        with errors_of(path):
            if _blob(path).exists(retry=retry()):
                return True
    return is_directory(path)


def is_directory(path: str) -> bool:
    """Whether any object lies below that name; a bucket is a directory even if it is empty."""
    try:
        with errors_of(path):
            listing = _list(path, max_results=1)
            return any(True for _ in listing) or not split(path)[1]
    except FileNotFoundError:  # no such bucket
        return False


def file_size(path: str) -> int:
    with errors_of(path):
        return _metadata(path).size


def crc32c_of_file(path: str) -> str:
    with errors_of(path):
        return _metadata(path).crc32c


def remove(path: str) -> None:
    """Removes an object; none is fine."""
    with contextlib.suppress(FileNotFoundError), errors_of(path):
        _blob(path).delete(retry=retry())


def list_directory(path: str) -> list[Entry]:
    """What is directly below a name, sorted by name."""
    start = len(_prefix(path))
    with errors_of(path):
        listing = _list(path, delimiter="/")
        files = [Entry(blob.name[start:], False, blob.size) for blob in listing]
    # A console's 'new folder' is an object of the folder's own name: no file.
    entries = [entry for entry in files if entry.name]
    entries += [Entry(prefix[start:-1], True, 0) for prefix in listing.prefixes]
    if not files and not entries and _prefix(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return sorted(entries)


def list_tree(path: str) -> list[tuple[str, int]]:
    """Every object below a name, as sorted (name relative to it, bytes).

    A listing tells 1,000 names at a time, one page after the other; so the first level is listed
    first, and then all that is below it at once.
    """
    top = list_directory(path)
    start = len(_prefix(path))

    def below(directory: str) -> list[tuple[str, int]]:
        inner = f"{SCHEME}{split(path)[0]}/{_prefix(path)}{directory}"
        with errors_of(inner):
            found = [(blob.name[start:], blob.size) for blob in _list(inner)]
        return [(name, size) for name, size in found if not name.endswith("/")]

    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        parts = pool.map(below, [entry.name for entry in top if entry.is_directory])
        files = [(entry.name, entry.num_bytes) for entry in top if not entry.is_directory]
        return sorted(itertools.chain(files, *parts))


def _prefix(path: str) -> str:
    name = split(path)[1].rstrip("/")
    return f"{name}/" if name else ""


def _blob(path: str, generation: int | None = None) -> storage.Blob:
    bucket, name = split(path)
    if not name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return client().bucket(bucket).blob(name, generation=generation)


def _metadata(path: str) -> storage.Blob:
    blob = _blob(path)
    blob.reload(retry=retry())
    return blob


def _list(path: str, delimiter: str | None = None, max_results: int | None = None):
    return client().list_blobs(
        split(path)[0],
        prefix=_prefix(path) or None,
        delimiter=delimiter,
        max_results=max_results,
        fields="items(name,size),prefixes,nextPageToken",
        retry=retry(),
    )


class _ObjectReader(io.RawIOBase):
    """One generation of an object as a seekable file."""

    def __init__(self, path: str, size: int, generation: int | None):
        super().__init__()
        self.name = path
        self._size = size
        self._generation = generation
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.name)
        self._position = base + offset
        return self._position

    def readinto(self, buffer) -> int:
        content = self._next(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self._next(self._size)

    def _next(self, length: int) -> bytes:
        length = min(length, self._size - self._position)
        content = read_range(self.name, self._position, length, self._generation)
        self._position += len(content)
        return content
