"""Takes the checkpoint out of a released archive, and nothing else.

V1 and V2 have one checkpoint, `NAME.ckpt`, at the top. V3 has two: `ema/model-STEP`, the averages
under the names of the weights, and `pristine/model.ckpt-STEP`, the training checkpoint.
"""

from __future__ import annotations

import glob
import gzip
import os
import posixpath
import shutil
import tarfile
import zlib

from common.errors import UserError
from common.files import atomic_directory
from loaders.download import default_cache_dir, fetch_archive
from loaders.zoo import ZooRow

MAX_BYTES = 2 << 30  # of all members together; the released archives unpack to some 200 MB
MAX_MEMBERS = 1000

_INDEX = ".index"
_BLOCK = 1 << 20
# Folders of an archive by the set of weights that is wanted, the best first.
_FOLDERS = {"averages": ("ema", "pristine"), "raw": ("pristine",)}


def fetch_checkpoint(row: ZooRow, weights: str | None = None, cache_dir: str | None = None) -> str:
    """The prefix of a released checkpoint, downloaded and unpacked unless it is in the cache.

    Args:
        row: which one.
        weights: 'averages' or 'raw'; by default the set that the row names.
        cache_dir: where archives are kept and unpacked; None for `default_cache_dir()`.

    Raises:
        UserError: the archive cannot be had, or holds no such checkpoint.
    """
    cache_dir = cache_dir or default_cache_dir()
    weights = weights or row.weights
    directory = os.path.join(cache_dir, f"{row.name}-{weights}")
    unpacked = glob.glob(os.path.join(glob.escape(directory), "**", f"*{_INDEX}"), recursive=True)
    if unpacked:
        return unpacked[0].removesuffix(_INDEX)
    return extract_checkpoint(fetch_archive(row, cache_dir), row, directory, weights)


def extract_checkpoint(
    archive: str, row: ZooRow, directory: str, weights: str | None = None
) -> str:
    """Unpacks the checkpoint of an archive into `directory`, whose content it replaces.

    Args:
        archive: path of the .tgz.
        row: what it is the archive of.
        directory: to write; V3's folders `ema` and `pristine` are kept in it.
        weights: 'averages' or 'raw'; by default the set that the row names.

    Returns:
        The checkpoint's prefix.

    Raises:
        UserError: the archive is damaged, not to be trusted, or holds no such checkpoint.
    """
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            members = _checked_members(tar, archive)
            while stream.read(_BLOCK):  # to the end, where gzip compares its checksum
                pass
            prefix = _choose(list(members), row, weights or row.weights, archive)
            folder, name = posixpath.split(prefix)
            inner = posixpath.basename(folder)
            kept = inner if inner in _FOLDERS["averages"] else ""
            with atomic_directory(directory) as temporary:
                os.makedirs(os.path.join(temporary, kept), exist_ok=True)
                for path, member in members.items():
                    if path == prefix + _INDEX or path.startswith(f"{prefix}.data-"):
                        target = os.path.join(temporary, kept, posixpath.basename(path))
                        with tar.extractfile(member) as source, open(target, "wb") as file:
                            shutil.copyfileobj(source, file)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the archive
            raise
        raise UserError(
            f"{archive} is damaged: {error}; delete it and {archive}.json to download it anew"
        ) from None
    return os.path.join(directory, kept, name)


def _checked_members(tar: tarfile.TarFile, archive: str) -> dict[str, tarfile.TarInfo]:
    """The files of an archive by path.

    Raises:
        UserError: a path leads out of the archive, or a member is a link, a device or too large.
    """
    files, total = {}, 0
    for number, member in enumerate(tar, start=1):
        path = posixpath.normpath(member.name)
        total += member.size
        if path.startswith(("/", "../")) or path == "..":
            problem = "has a path that leads out of the archive"
        elif not (member.isfile() or member.isdir()):
            problem = "is neither a file nor a directory"
        elif total > MAX_BYTES or number > MAX_MEMBERS:
            problem = f"goes beyond {MAX_BYTES >> 20} MB or {MAX_MEMBERS} members"
        else:
            if member.isfile():
                files[path] = member
            continue
        raise UserError(f"{archive} is not to be trusted: {member.name!r} {problem}")
    return files


def _choose(paths: list[str], row: ZooRow, weights: str, archive: str) -> str:
    """The prefix of the checkpoint that holds the weights that are wanted."""
    prefixes = [
        path.removesuffix(_INDEX)
        for path in paths
        if path.endswith(_INDEX) and not posixpath.basename(path).startswith(".")
    ]
    flat = [prefix for prefix in prefixes if posixpath.basename(prefix) == f"{row.name}.ckpt"]
    by_folder = {
        folder: [p for p in prefixes if posixpath.basename(posixpath.dirname(p)) == folder]
        for folder in _FOLDERS["averages"]
    }
    if not flat and any(by_folder.values()):
        wanted = [by_folder[folder] for folder in _FOLDERS[weights] if by_folder[folder]]
        found = wanted[0] if wanted else []
    else:
        found = flat or prefixes
    if len(found) != 1:
        held = ", ".join(prefixes) or "none"
        raise UserError(
            f"{archive} does not hold one checkpoint of {weights} weights (it holds {held}): unpack"
            " it, and name one by --checkpoint_path"
        )
    return found[0]
