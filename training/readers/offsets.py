"""Where the records of TFRecord files begin that no table of ours tells.

One pass over the headers finds out, 12 bytes a record; what it finds is kept in a cache of the
user's, so that it is made once for each state of the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import logging
import os
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from common import files
from common.errors import UserError
from common.progress import Progress
from preprocessing.tfrecord import FRAME_BYTES, HEADER_BYTES, masked_crc

# A bucket answers in tens of milliseconds, whatever is asked, so many files are read at once.
REMOTE_THREADS = 16
# From a bucket, headers come with what lies between them: a request for each would take longer.
REMOTE_BLOCK = 8 << 20

SECONDS_BEFORE_PROGRESS = 5.0
_LENGTH = struct.Struct("<Q")


def record_bounds(paths: Sequence[str]) -> list[np.ndarray]:
    """For each file the byte offset of each record, and the file's size, as int64.

    Raises:
        UserError: a file is missing, cannot be read, or is no TFRecord file.
    """
    states = list(_map_files(_state_of, paths))
    sizes = [size for size, _ in states]
    lines = [f"{_absolute(path)}\0{state}\n" for path, state in zip(paths, states, strict=True)]
    key = hashlib.sha256("".join(lines).encode()).hexdigest()
    cached = os.path.join(cache_directory(), f"records-{key[:32]}.npz")
    if (found := _load(cached, sizes)) is not None:
        return found
    bounds = list(_with_progress(_map_files(_scan, paths), sizes))
    _save(cached, bounds)
    return bounds


def fingerprint_of(paths: Sequence[str], bounds: Sequence[np.ndarray]) -> str:
    """SHA-256 of the files' names (without folders), their sizes, and where records begin."""
    digest = hashlib.sha256()
    for path, ends in zip(paths, bounds, strict=True):
        digest.update(f"{path.rpartition('/')[2]}\0{len(ends) - 1}\0".encode())
        digest.update(ends.astype("<i8").tobytes())
    return digest.hexdigest()


def cache_directory() -> str:
    """Where what can be found out anew is kept, after the XDG base directories."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "mobilenet-pipeline")


def _map_files(work, paths: Sequence[str]) -> Iterator:
    if not any(map(files.is_remote, paths)):
        yield from map(work, paths)
        return
    with ThreadPoolExecutor(REMOTE_THREADS) as pool:
        yield from pool.map(work, paths)


def _state_of(path: str) -> tuple[int, str]:
    """A file's size, and what changes when its content does."""
    with _errors_of(path):
        if files.is_remote(path):
            return files.file_size(path), files.crc32c_of_file(path)
        status = os.stat(path)
        return status.st_size, str(status.st_mtime_ns)


def _scan(path: str) -> np.ndarray:
    with _errors_of(path):
        if files.is_remote(path):
            size = files.file_size(path)
            with files.open_for_reading(path, REMOTE_BLOCK) as file:

                def read_header(offset: int) -> bytes:
                    file.seek(offset)
                    return file.read(HEADER_BYTES)

                return _hop(path, size, read_header)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Without this the system reads ahead what lies between the headers.
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            size = os.fstat(descriptor).st_size
            return _hop(path, size, lambda offset: os.pread(descriptor, HEADER_BYTES, offset))
        finally:
            os.close(descriptor)


def _hop(path: str, size: int, read_header) -> np.ndarray:
    """Goes from header to header; each holds the length of its record and a checksum of that."""
    starts, offset = [], 0
    while offset < size:
        header = read_header(offset)
        length_bytes = header[: _LENGTH.size]
        is_header = len(header) == HEADER_BYTES and header[_LENGTH.size :] == masked_crc(
            length_bytes
        )
        end = offset + FRAME_BYTES + _LENGTH.unpack(length_bytes)[0] if is_header else 0
        if not is_header or end > size:
            what = "goes on beyond the end of the file" if is_header else "has a damaged header"
            raise UserError(
                f"record {len(starts)} of shard {path}, at byte {offset}, {what}, so that no record"
                " after it can be found: fetch the file anew, or make it again"
            )
        starts.append(offset)
        offset = end
    return np.array([*starts, size], np.int64)


def _with_progress(found: Iterator[np.ndarray], sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Passes the files' bounds on; work that takes longer shows how far it is."""
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        progress = None
        for number, bounds in enumerate(found):
            yield bounds
            if progress:
                progress.update(1)
            elif time.monotonic() - start > SECONDS_BEFORE_PROGRESS:
                what = "finding the records, once"
                logging.info(f"{what}: {number + 1} of {len(sizes)} files done")
                progress = stack.enter_context(Progress(len(sizes), "file", what, number + 1))


def _load(path: str, sizes: Sequence[int]) -> list[np.ndarray] | None:
    """What the cache holds; None if it holds nothing, or nothing that fits the files."""
    try:
        with np.load(io.BytesIO(files.read_bytes(path))) as found:
            flat, counts = found["bounds"], found["counts"]
    except Exception:  # a damaged cache fails in many ways, and is made anew
        return None
    ends = [0, *itertools.accumulate(counts.tolist())]
    bounds = [flat[start:end] for start, end in itertools.pairwise(ends)]
    fits = len(flat) == ends[-1] and [int(b[-1]) if len(b) else -1 for b in bounds] == list(sizes)
    return bounds if fits else None


def _save(path: str, bounds: Sequence[np.ndarray]) -> None:
    out = io.BytesIO()
    np.savez(out, bounds=np.concatenate(bounds), counts=np.array([len(b) for b in bounds]))
    try:
        files.write_bytes(path, out.getvalue())
    except (OSError, UserError) as error:
        logging.info(f"where records begin is not kept for the next time: {error}")


def _absolute(path: str) -> str:
    return path if files.is_remote(path) else os.path.realpath(path)


@contextlib.contextmanager
def _errors_of(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"shard {path} cannot be read: {error.strerror or error}") from None
