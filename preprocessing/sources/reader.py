"""Reads the bytes of listed images, with a few threads ahead where that helps."""

from __future__ import annotations

import collections
import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from common.errors import UserError
from common.files import is_remote, join, read_bytes, read_range
from preprocessing.sources.listing import WHOLE_FILE

# Cached files need no thread, which would cost more than it saves; buckets have latency.
LOCAL_THREADS, REMOTE_THREADS = 0, 8

# Files kept open for ranges. A shard takes its images from all class tars, in no order.
OPEN_FILES = 64

# What makes one image unreadable. Anything else (a full disk, no memory, too many open files, a
# network that is down) would hit the next image as well, and must not look like a bad image.
_OF_THE_FILE = frozenset(
    getattr(errno, name)
    for name in ("ENOENT", "EACCES", "EPERM", "EIO", "EISDIR", "ENOTDIR", "ELOOP", "ENAMETOOLONG")
)
_KINDS = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
}


class Unreadable(Exception):
    """The bytes of one image cannot be had; it goes on with the next."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Placed(Protocol):
    """An image that says where its bytes lie; see `listing.SourceImage`."""

    path: str
    offset: int
    num_bytes: int


Image = TypeVar("Image", bound=Placed)


class SourceReader:
    """Reads images below one root.

    Args:
        root: what a listing says.
        num_threads: how many read ahead; None for what suits the root, 0 for none.
    """

    def __init__(self, root: str, num_threads: int | None = None):
        self._root, self._below = root, join(root, "")
        self._is_remote = is_remote(root)
        if num_threads is None:
            num_threads = REMOTE_THREADS if self._is_remote else LOCAL_THREADS
        self._num_threads = num_threads
        self._open: collections.OrderedDict[str, _Descriptor] = collections.OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, offset: int, num_bytes: int) -> bytes:
        """The bytes of an image; the arguments are what its listing says.

        Raises:
            Unreadable: the file is missing, may not be read, is damaged or ends before.
            UserError: the root is gone, or the network has failed.
        """
        full = self._below + path if path else self._root
        try:
            if offset != WHOLE_FILE:
                content = self._read_range(full, offset, num_bytes)
            elif self._is_remote:
                content = read_bytes(full)
            else:
                content = _read_file(full)
        except OSError as error:
            number = error.errno
            if number is None:
                kinds = [code for kind, code in _KINDS.items() if isinstance(error, kind)]
                number = kinds[0] if kinds else None
            if number not in _OF_THE_FILE:
                raise
            self._require_root(number)
            raise Unreadable(error.strerror or os.strerror(number)) from None
        if offset != WHOLE_FILE and len(content) != num_bytes:
            raise Unreadable(f"{full} ends before byte {offset + num_bytes}")
        return content

    def read_ahead(self, images: Iterable[Image]) -> Iterator[tuple[Image, bytes | Unreadable]]:
        """Yields each image with its bytes, or with why there are none, in the given order.

        A few more images than there are threads are in memory at once. Closing the iterator, or
        dropping it, ends the threads.
        """
        if not self._num_threads:
            for image in images:
                yield image, self._read_or_reason(image)
            return
        waiting = collections.deque()
        pool = ThreadPoolExecutor(self._num_threads, "read")
        try:
            for image in images:
                waiting.append((image, pool.submit(self._read_or_reason, image)))
                if len(waiting) > 2 * self._num_threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Closes the files that are kept open."""
        with self._lock:
            self._open.clear()

    def __enter__(self) -> SourceReader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _read_or_reason(self, image: Placed) -> bytes | Unreadable:
        try:
            return self.read(image.path, image.offset, image.num_bytes)
        except Unreadable as error:
            return error

    def _read_range(self, path: str, offset: int, num_bytes: int) -> bytes:
        if self._is_remote:
            return read_range(path, offset, num_bytes) if num_bytes else b""
        return _pread(self._descriptor(path).number, offset, num_bytes)

    def _descriptor(self, path: str) -> _Descriptor:
        with self._lock:
            descriptor = self._open.pop(path, None) or _Descriptor(path)
            self._open[path] = descriptor
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return descriptor

    def _require_root(self, number: int) -> None:
        """A source that is not there at all is no matter of single images."""
        if number == errno.ENOENT and not self._is_remote and not os.path.exists(self._root):
            raise UserError(
                f"--source={self._root} is gone, or not there for this worker"
            ) from None


class _Descriptor:
    """An open file, closed once nobody reads from it any more, in whatever thread that is."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


def _read_file(path: str) -> bytes:
    # A pipe would block without the flag; files do not know it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            raise Unreadable("Not a regular file")
        content = os.read(descriptor, status.st_size)
        if len(content) == status.st_size:
            return content
        return _read_on(descriptor, content, status.st_size)
    finally:
        os.close(descriptor)


def _read_on(descriptor: int, content: bytes, size: int) -> bytes:
    """The rest of a file that came in pieces, as large ones and those of some networks do."""
    parts = [content]
    missing = size - len(content)
    while missing and (part := os.read(descriptor, missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _pread(descriptor: int, offset: int, num_bytes: int) -> bytes:
    content = os.pread(descriptor, num_bytes, offset)
    while len(content) < num_bytes and (
        part := os.pread(descriptor, num_bytes - len(content), offset + len(content))
    ):
        content += part
    return content
