"""The one way in which stages read and write files.

Every write goes to a temporary name in the same directory and is renamed when it is whole, so that
a file under its final name is always complete. Temporary names begin with `.tmp-`, which no
reader's glob (`train-*`) matches.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO

from common.errors import UsageError, UserError

TEMPORARY_PREFIX = ".tmp-"


def temporary_name(path: str) -> str:
    """A name of this attempt's own, beside `path`."""
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(directory, f"{TEMPORARY_PREFIX}{os.getpid()}-{name}")


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[BinaryIO]:
    """Opens a binary file that appears under `path` only when the block ends without an error."""
    make_directory(os.path.dirname(os.path.abspath(path)))
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            error.filename = path  # the system does not say what it had no room for
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


@contextlib.contextmanager
def atomic_directory(path: str) -> Iterator[str]:
    """Yields a temporary directory that takes the place of `path` when the block ends well."""
    make_directory(os.path.dirname(os.path.abspath(path)))
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


def write_bytes(path: str, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: str, content: str) -> None:
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str, value: Any) -> None:
    """Writes `value` the same way every time: sorted keys, two spaces, a last newline."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file is missing, unreadable or not JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def make_directory(path: str) -> None:
    """Makes a directory and its parents.

    Raises:
        UserError: it cannot be made, or a file has that name.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the directory {path}: {error.strerror}") from None


def require_writable(path: str, flag: str) -> None:
    """Makes the directory `path` and proves that it can be written to, before work is spent.

    Raises:
        UserError: it cannot be made or written to; the message names `flag`.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with atomic_write(os.path.join(path, "write-test")):
            pass
        os.remove(os.path.join(path, "write-test"))
    except (OSError, UserError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--{flag}={path} cannot be written to: {reason}") from None


def require_writable_file(path: str, flag: str) -> None:
    """As `require_writable`, for a file that is to be written or replaced.

    Raises:
        UserError: its directory cannot be written to.
        UsageError: a directory has that name.
    """
    if os.path.isdir(path):
        raise UsageError(f"--{flag}={path} is a directory: name a file")
    require_writable(os.path.dirname(os.path.abspath(path)), flag)


def sha256_of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: str) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def fingerprint(path: str) -> str | None:
    """SHA-256 of a file, or of the names and contents of a directory; None if there is neither."""
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


def size_of(path: str) -> int:
    """Bytes of a file, or of all files below a directory."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(os.path.join(directory, name))
        for directory, _, names in os.walk(path)
        for name in names
    )
