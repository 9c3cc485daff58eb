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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO

from common import listing
from common.bucket_client import DamagedError, client, errors_of, retry, until_whole
from common.errors import UsageError, UserError
from common.listing import Entry

if TYPE_CHECKING:
    from google.cloud import storage

SCHEME = "gs://"
LISTING_THREADS = 16
TRANSFER_THREADS = 8

# Stands in a directory while it is sent; where it is found, that was cut short.
UNFINISHED = ".tmp-unfinished"

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
    handle, temporary = tempfile.mkstemp(prefix="mobilenet-upload-")
    try:
        with os.fdopen(handle, "wb", buffering) as file:
            yield file
        upload(temporary, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = temporary  # the disk that is full is the local one
        raise
    finally:
        os.remove(temporary)


def upload(local: str, path: str) -> None:
    """Sends a local file to `path`, checked by its CRC32C."""
    content_type = mimetypes.guess_type(split(path)[1])[0] or "application/octet-stream"
    with errors_of(path):
        until_whole(
            lambda: _blob(path).upload_from_filename(
                local, content_type=content_type, checksum="crc32c", retry=retry()
            )
        )


def download(path: str, local: str) -> None:
    """Fetches an object into a local file, checked by its CRC32C."""

    def whole() -> None:
        blob = _metadata(path)
        reader = _ObjectReader(path, blob.size, blob.generation)
        checksum = 0
        with open(local, "wb") as file:
            while block := reader.read(READ_AHEAD):
                checksum = crc32c_of_bytes(block, checksum)
                file.write(block)
        if printed_crc32c(checksum) != blob.crc32c:
            raise DamagedError(f"{blob.size:,} bytes came that are not the object's")

    try:
        with errors_of(path):
            until_whole(whole)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = local
        raise


def upload_tree(local: str, path: str, last: str | None = None) -> None:
    """Makes what lies below `path` the same as a local directory.

    A bucket replaces no directory at once. So the old object `last` goes first and the new one
    comes when all else is as it should be: whoever finds it finds a whole directory, the old one or
    the new one, and whoever is cut short in between leaves none, but `UNFINISHED`.

    Args:
        local: the directory.
        path: the name to send it to.
        last: file in it by which readers know that it is whole.
    """
    before = {name for name, _ in list_tree(path)} if is_directory(path) else set()
    names = [name for name, _ in listing.list_tree(local)]
    with atomic_write(f"{path}/{UNFINISHED}"):
        pass
    if last in before:
        remove(f"{path}/{last}")
    ours = [name for name in names if name != last]
    _in_parallel(lambda name: upload(os.path.join(local, name), f"{path}/{name}"), ours)
    _in_parallel(lambda name: remove(f"{path}/{name}"), before - set(names) - {last, UNFINISHED})
    if last in names:
        upload(os.path.join(local, last), f"{path}/{last}")
    remove(f"{path}/{UNFINISHED}")


def download_tree(path: str, local: str) -> None:
    """Fetches all objects below `path` into a local directory.

    Raises:
        UserError: an object's name is none that a file could have.
    """
    names = [name for name, _ in list_tree(path)]
    for name in names:
        if not all(part.strip(".") for part in name.split("/")) or "\0" in name:
            raise UserError(f"{path}/{name} cannot be fetched: no file can have that name")
        os.makedirs(os.path.dirname(os.path.join(local, name)), exist_ok=True)
    _in_parallel(lambda name: download(f"{path}/{name}", os.path.join(local, name)), names)


def exists(path: str) -> bool:
    """Whether there is an object of that name, or any below it."""
    return is_file(path) or is_directory(path)


def is_file(path: str) -> bool:
    """Whether there is an object of that name."""
    with errors_of(path):
        return bool(split(path)[1]) and _blob(path).exists(retry=retry())


def is_directory(path: str) -> bool:
    """Whether any object lies below that name; a bucket is a directory even if it is empty."""
    try:
        with errors_of(path):
            found = _list(path, max_results=1)
            return any(True for _ in found) or not split(path)[1]
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
        found = _list(path, delimiter="/")
        files = [Entry(blob.name[start:], False, blob.size) for blob in found]
    # A console's 'new folder' is an object of the folder's own name: no file.
    entries = [entry for entry in files if entry.name]
    entries += [Entry(prefix[start:-1], True, 0) for prefix in found.prefixes]
    if not files and not entries and _prefix(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return sorted(entries)


def list_tree(path: str) -> list[tuple[str, int]]:
    """Every object below a name, as sorted (name relative to it, bytes)."""
    return [(name, size) for name, size, _ in list_versions(path)]


def list_versions(path: str) -> list[tuple[str, int, int]]:
    """Every object below a name, as sorted (name relative to it, bytes, generation).

    A listing tells 1,000 names at a time, one page after the other; so the first level is listed
    first, and then all that is below it at once.
    """
    start = len(_prefix(path))

    def described(blob: storage.Blob) -> tuple[str, int, int]:
        return blob.name[start:], blob.size, blob.generation

    def below(directory: str) -> list[tuple[str, int, int]]:
        inner = f"{SCHEME}{split(path)[0]}/{directory}"
        with errors_of(inner):
            return [described(blob) for blob in _list(inner)]

    with errors_of(path):
        listed = _list(path, delimiter="/")
        top = [described(blob) for blob in listed]
    if not top and not listed.prefixes and _prefix(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        found = itertools.chain(top, *pool.map(below, listed.prefixes))
        # A console's 'new folder', or TensorFlow's directory, is an object that is no file.
        return sorted(row for row in found if row[0] and not row[0].endswith("/"))


def remove_tree(path: str) -> None:
    """Removes all objects below a name, those that only stand for directories among them."""
    with errors_of(path):
        names = [blob.name for blob in _list(path)]
    bucket = split(path)[0]
    _in_parallel(lambda name: remove(f"{SCHEME}{bucket}/{name}"), names)


def move(source: str, target: str) -> None:
    """Moves an object, or all objects below a name, within Cloud Storage.

    All copies are there before the first original goes, so that nothing is lost on the way.
    """
    if is_file(source):
        _copy(source, target)
        remove(source)
        return
    names = [name for name, _ in list_tree(source)]
    _in_parallel(lambda name: _copy(f"{source}/{name}", f"{target}/{name}"), names)
    remove_tree(source)


def _copy(source: str, target: str) -> None:
    with errors_of(source):
        made, token = _blob(target), None
        while True:  # a large object takes several calls
            token, _, _ = made.rewrite(_blob(source), token=token, retry=retry())
            if token is None:
                return


def _in_parallel(action: Callable[[str], None], names: Iterable[str]) -> None:
    """Does `action` for every name; the first error ends it."""
    with ThreadPoolExecutor(TRANSFER_THREADS) as pool:
        for _ in pool.map(action, names):
            pass


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
        fields="items(name,size,generation),prefixes,nextPageToken",
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
