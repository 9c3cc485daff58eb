"""Bytes of one large file that is hopped through: headers are read, what lies between is not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from common.errors import UserError
from common.files import file_size, is_remote, read_range

# A header and the byte before it, a long name among them, come with one read.
LOCAL_BLOCK = 4096

# A request to a bucket takes tens of milliseconds whatever it asks for. Blocks of this size take
# about as long to arrive as to be asked for, and hold some dozens of photos: reading through them
# costs less than a request for each header.
REMOTE_BLOCK = 4 << 20

# Where headers lie further apart than that, each is a request of this size.
REMOTE_PIECE = 16 << 10

BLOCKS_AHEAD = 8


class View(Protocol):
    """Random access to a file; reads near the last one cost no further call."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at `offset`; fewer than `length` only where the file ends."""


@contextlib.contextmanager
def open_view(path: str, name: str, ahead: int = 0) -> Iterator[View]:
    """Opens a file, local or in a bucket.

    Args:
        path: its path.
        name: what messages call it.
        ahead: blocks that are asked for before they are needed, where it lies in a bucket.

    Raises:
        UserError: it is missing or cannot be read, now or later.
    """
    try:
        view = _RemoteView(path, ahead) if is_remote(path) else _LocalView(path)
        try:
            yield view
        finally:
            view.close()
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from None


class Window:
    """A part of a view as the file object that `tarfile` reads.

    Attributes:
        fell_short: whether more was asked for than there is.
    """

    def __init__(self, view: View, start: int, size: int):
        self._view, self._start, self._size = view, start, size
        self._position = 0
        self.fell_short = False

    def read(self, length: int) -> bytes:
        within = max(0, min(length, self._size - self._position))
        content = self._view.read_at(self._start + self._position, within)
        self._position += len(content)
        self.fell_short = self.fell_short or len(content) < length
        return content

    def seek(self, position: int) -> None:
        self._position = max(0, position)  # Python 3.10 seeks to -1 in a tar without members

    def tell(self) -> int:
        return self._position


class _LocalView:
    def __init__(self, path: str):
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size
        self._start, self._block = 0, b""

    def read_at(self, offset: int, length: int) -> bytes:
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._block):
            self._start = offset
            self._block = os.pread(self._descriptor, max(length, LOCAL_BLOCK), offset)
            begin = 0
        return self._block[begin : begin + length]

    def close(self) -> None:
        os.close(self._descriptor)


class _RemoteView:
    """Small pieces where reads lie far apart; where they do not, blocks at multiples of their size.

    As long as it is read on in order, the next blocks are asked for ahead.
    """

    def __init__(self, path: str, ahead: int):
        self.size = file_size(path)
        self._path, self._ahead = path, ahead
        self._pool = ThreadPoolExecutor(max(1, ahead))
        self._blocks: dict[int, Future[bytes]] = {}
        self._last = -2
        self._start, self._piece = 0, b""

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        begin = offset - self._start
        if begin >= 0 and begin + length <= len(self._piece):
            return self._piece[begin : begin + length]
        first, last = offset // REMOTE_BLOCK, (offset + length - 1) // REMOTE_BLOCK
        is_near = first in self._blocks or first in (self._last, self._last + 1)
        self._last = last
        if is_near:
            content = b"".join(self._block(number) for number in range(first, last + 1))
            begin = offset - first * REMOTE_BLOCK
            return content[begin : begin + length]
        self._start = offset
        wanted = min(max(length, REMOTE_PIECE), self.size - offset)
        self._piece = read_range(self._path, offset, wanted)
        return self._piece[:length]

    def _block(self, number: int) -> bytes:
        for old in [block for block in self._blocks if block < number]:
            self._blocks.pop(old).cancel()
        for wanted in range(number, number + 1 + self._ahead):
            begin = wanted * REMOTE_BLOCK
            length = min(REMOTE_BLOCK, self.size - begin)
            if wanted not in self._blocks and length > 0:
                self._blocks[wanted] = self._pool.submit(read_range, self._path, begin, length)
        return self._blocks[number].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
