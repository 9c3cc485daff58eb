"""The one way in which stages read and write files, local ones and those in buckets alike.

A path is a local one or `gs://BUCKET/NAME` (see `common.buckets`). Every local write goes to a
temporary name in the same directory and is renamed when it is whole, so that a file under its final
name is always complete; an object in a bucket is whole by nature. Temporary names begin with
`.tmp-`, which no reader's glob (`train-*`) matches.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from common import buckets, listing
from common.errors import UsageError, UserError
from common.listing import Entry

TEMPORARY_PREFIX = ".tmp-"
BLOCK = 1 << 20


def is_remote(path: str) -> bool:
    return path.startswith(buckets.SCHEME)


def join(directory: str, *names: str) -> str:
    if is_remote(directory):
        return "/".join([directory.rstrip("/"), *names])
    return os.path.join(directory, *names)


def open_for_reading(path: str, buffering: int = -1) -> BinaryIO:
    """A seekable binary file; `buffering` is how much it reads ahead."""
    if is_remote(path):
        return buckets.open_for_reading(path, buffering)
    return open(path, "rb", buffering)


def read_bytes(path: str) -> bytes:
    if is_remote(path):
        return buckets.read_bytes(path)
    with open(path, "rb") as file:
        return file.read()


def read_range(path: str, offset: int, length: int) -> bytes:
    """The bytes from `offset` on; fewer than `length` only where the file ends."""
    if is_remote(path):
        return buckets.read_range(path, offset, length)
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def exists(path: str) -> bool:
    """Whether there is a file or a directory of that name."""
    return buckets.exists(path) if is_remote(path) else os.path.exists(path)


def is_directory(path: str) -> bool:
    return buckets.is_directory(path) if is_remote(path) else os.path.isdir(path)


def is_file(path: str) -> bool:
    return buckets.is_file(path) if is_remote(path) else os.path.isfile(path)


def absolute(path: str) -> str:
    """A path that means the same from every directory."""
    return path if is_remote(path) else os.path.abspath(path)


def parent(path: str) -> str:
    """The directory that a file or directory is in."""
    return os.path.dirname(path.rstrip("/") if is_remote(path) else os.path.abspath(path))


def file_size(path: str) -> int:
    if is_remote(path):
        return buckets.file_size(path)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return os.path.getsize(path)


def list_directory(path: str) -> list[Entry]:
    """What is in a directory, sorted by name; a directory's names are not looked into."""
    return buckets.list_directory(path) if is_remote(path) else listing.list_directory(path)


def list_tree(path: str) -> list[tuple[str, int]]:
    """Every file below a directory, as sorted (path relative to it, bytes)."""
    return buckets.list_tree(path) if is_remote(path) else listing.list_tree(path)


def find(directory: str, pattern: str) -> list[str]:
    """Files and directories in or below `directory` by a shell pattern, as sorted relative paths.

    Args:
        directory: where to look; nothing is found in one that is not there.
        pattern: of the shell's; in a bucket only its last part has wildcards.
    """
    if not is_remote(directory):
        return sorted(glob.glob(pattern, root_dir=directory))
    above, _, last = pattern.rpartition("/")
    try:
        names = [
            entry.name for entry in list_directory(join(directory, above) if above else directory)
        ]
    except FileNotFoundError:
        return []
    names = [name for name in names if last.startswith(".") or not name.startswith(".")]
    return [f"{above}/{name}" if above else name for name in fnmatch.filter(names, last)]


def remove_tree(path: str) -> None:
    """Removes a directory and all that is in it, as far as that can be done; none is fine."""
    if is_remote(path):
        buckets.remove_tree(path)
        return
    shutil.rmtree(path, ignore_errors=True)


def move(source: str, target: str) -> None:
    """Moves a file or directory to a name on the same disk or, of a bucket, in any bucket."""
    if is_remote(source):
        buckets.move(source, target)
        return
    make_directory(os.path.dirname(target))
    os.replace(source, target)


def remove(path: str) -> None:
    """Removes a file; none is fine."""
    if is_remote(path):
        buckets.remove(path)
        return
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def temporary_name(path: str) -> str:
    """A name of this thread's own, beside `path`."""
    directory, name = os.path.split(os.path.abspath(path))
    writer = f"{os.getpid()}-{threading.get_native_id()}"
    return os.path.join(directory, f"{TEMPORARY_PREFIX}{writer}-{name}")


@contextlib.contextmanager
def atomic_write(path: str, buffering: int = -1) -> Iterator[BinaryIO]:
    """Opens a binary file that appears under `path` only when the block ends without an error."""
    if is_remote(path):
        with buckets.atomic_write(path, buffering) as file:
            yield file
        return
    make_directory(os.path.dirname(os.path.abspath(path)))
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb", buffering) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave an empty file of the final name
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            error.filename = path  # the system does not say what it had no room for
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


@contextlib.contextmanager
def atomic_directory(path: str, last: str | None = None) -> Iterator[str]:
    """Yields a temporary directory that takes the place of `path` when the block ends well.

    In a bucket nothing can take the place of a directory at once; see `buckets.upload_tree`.

    Args:
        path: what is made or replaced.
        last: file in it by which readers know that it is whole.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="mobilenet-upload-") as temporary:
            yield temporary
            buckets.upload_tree(temporary, path.rstrip("/"), last)
        return
    path = os.path.realpath(path)  # what a link names takes the new content, not the link
    make_directory(os.path.dirname(path))
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        os.makedirs(temporary)
        yield temporary
        if os.path.isdir(path):
            outgoing = temporary_name(path) + ".old"
            os.replace(path, outgoing)
            try:
                os.replace(temporary, path)
            except BaseException:
                os.replace(outgoing, path)
                raise
            shutil.rmtree(outgoing)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def is_replaceable(path: str, last: str) -> bool:
    """Whether `atomic_directory` destroys nothing of somebody else's.

    So it is where there is nothing, an empty directory, one that holds `last`, or one in a bucket
    that was not sent to its end.
    """
    if not is_directory(path):
        return not exists(path)
    names = {entry.name for entry in list_directory(path)}
    return not names or last in names or buckets.UNFINISHED in names


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """Yields a local path of a file or directory: its own, or that of a copy for the time being.

    A copy has the same last name as the original, and is checked by its CRC32C.

    Raises:
        FileNotFoundError: there is neither, in the bucket; of local paths readers say so.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mobilenet-download-") as temporary:
        local = os.path.join(temporary, os.path.basename(path.rstrip("/")))
        try:
            buckets.download(path, local)
        except (FileNotFoundError, IsADirectoryError):
            os.mkdir(local)
            buckets.download_tree(path.rstrip("/"), local)
        yield local


def write_bytes(path: str, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: str, content: str) -> None:
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str, value: Any) -> None:
    """Writes `value` the same way every time: sorted keys, two spaces, a last newline."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_json_lines(path: str, rows: Iterable[Any]) -> None:
    """Writes one value per line."""
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def read_json(path: str) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(read_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def make_directory(path: str) -> None:
    """Makes a directory and its parents; a bucket has none to make.

    Raises:
        UserError: it cannot be made, or a file has that name.
    """
    if is_remote(path):
        return
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the directory {path}: {error.strerror}") from None


def require_writable(path: str, flag: str) -> None:
    """Makes the directory `path` and proves that it can be written to, before work is spent.

    Raises:
        UserError: it cannot be made or written to; the message names `flag`.
    """
    trial = join(path, f"{TEMPORARY_PREFIX}{os.getpid()}-write-test")
    try:
        if not is_remote(path):
            os.makedirs(path, exist_ok=True)
        write_bytes(trial, b"")
        remove(trial)
    except (OSError, UserError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--{flag}={path} cannot be written to: {reason}") from None


def require_outside(path: str, directory: str, flag: str) -> None:
    """Makes sure that what is read does not lie in the directory that is to be replaced.

    Raises:
        UsageError: it does; the message names `flag`.
    """
    inside, outside = (
        p if is_remote(p) else os.path.realpath(p) for p in (path, directory.rstrip("/"))
    )
    if f"{inside}/".startswith(f"{outside}/"):
        raise UsageError(
            f"--{flag}={directory} is to be replaced, and {path} lies in it: give another directory"
        )


def require_writable_file(path: str, flag: str) -> None:
    """As `require_writable`, for a file that is to be written or replaced.

    Raises:
        UserError: its directory cannot be written to.
        UsageError: a directory has that name.
    """
    if is_directory(path):
        raise UsageError(f"--{flag}={path} is a directory: name a file")
    require_writable(parent(path), flag)


def sha256_of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: str) -> str:
    with open_for_reading(path) as file:
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
        return digest.hexdigest()


def crc32c_of_file(path: str) -> str:
    """CRC32C as Cloud Storage prints it; of an object in a bucket without reading it."""
    if is_remote(path):
        return buckets.crc32c_of_file(path)
    checksum = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            checksum = buckets.crc32c_of_bytes(block, checksum)
    return buckets.printed_crc32c(checksum)


def fingerprint(path: str) -> str | None:
    """SHA-256 of a file, or of the names and contents of a directory; None if there is neither."""
    if is_remote(path):
        return _fingerprint_of_objects(path)
    if os.path.isfile(path):
        return sha256_of_file(path)
    if not os.path.isdir(path):
        return None
    digest = hashlib.sha256()
    for directory, subdirectories, names in os.walk(path):
        subdirectories.sort()
        for name in sorted(names):
            full = os.path.join(directory, name)
            digest.update(f"{os.path.relpath(full, path)}\0{sha256_of_file(full)}\n".encode())
    return digest.hexdigest()


def _fingerprint_of_objects(path: str) -> str | None:
    """The same as for a local copy: each directory's files before its subdirectories."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        return sha256_of_file(path)
    if not is_directory(path):
        return None
    digest = hashlib.sha256()
    names = [name.split("/") for name, _ in list_tree(path)]
    for *above, name in sorted(names, key=lambda n: [*((1, part) for part in n[:-1]), (0, n[-1])]):
        relative = "/".join([*above, name])
        digest.update(f"{relative}\0{sha256_of_file(join(path, relative))}\n".encode())
    return digest.hexdigest()


def size_of(path: str) -> int:
    """Bytes of a file, or of all files below a directory."""
    if is_remote(path):
        return sum(size for _, size in list_tree(path)) if is_directory(path) else file_size(path)
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(os.path.join(directory, name))
        for directory, _, names in os.walk(path)
        for name in names
    )


def listing_fingerprint(path: str) -> str:
    """A hash over names, sizes and times of the file `path`, or of all files below it."""
    digest = hashlib.sha256()
    for name, size, version in _versions_below(path):
        digest.update(os.fsencode(f"{name}\0{size}\0{version}\n"))
    return digest.hexdigest()


def _versions_below(path: str) -> list[tuple[str, int, int | str]]:
    """Path, bytes and time of files; of objects a generation or a checksum, which say more."""
    if is_remote(path):
        if is_file(path):
            return [(path, file_size(path), crc32c_of_file(path))]
        return [(join(path, name), *rest) for name, *rest in buckets.list_versions(path)]
    found = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    found = found if os.path.isdir(path) else [path]
    statuses = [(file, os.stat(file, follow_symlinks=False)) for file in sorted(found)]
    return [(file, status.st_size, status.st_mtime_ns) for file, status in statuses]
