"""Keeps two processes from writing into one directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from common.errors import UserError
from common.files import is_remote, make_directory


@contextlib.contextmanager
def alone_in(directory: str, otherwise: str | None = None) -> Iterator[None]:
    """Holds a local directory's lock in the block; the system frees that of a killed process.

    Buckets have no such locks, and some network disks have none either: there nobody is kept out.

    Args:
        directory: which is made if need be.
        otherwise: what is said when another process holds it; None waits for that.

    Raises:
        UserError: another one does.
    """
    if is_remote(directory):
        yield
        return
    make_directory(directory)
    folder = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | (fcntl.LOCK_NB if otherwise else 0))
        except BlockingIOError:
            raise UserError(otherwise) from None
        except OSError:  # there are no locks here
            pass
        yield
    finally:
        os.close(folder)
