"""The members of a tar, without their contents, and without unpacking anything."""

from __future__ import annotations

import dataclasses
import posixpath
import tarfile
from collections.abc import Callable

from common.errors import UserError
from preprocessing.sources.listing import is_hidden
from preprocessing.sources.views import View, Window

BLOCK = 512

_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip", "gunzip -c"),
    (b"BZh", "bzip2", "bunzip2 -c"),
    (b"\xfd7zXZ\0", "xz", "unxz -c"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd -c"),
)


@dataclasses.dataclass(frozen=True)
class Members:
    """What a tar holds, hidden names left out; names are without `./`.

    Attributes:
        files: `(offset, bytes)` of the content by name; the offset is that in the whole file. A
            name that stands twice means its last member, as when the tar is unpacked.
        folders: names of the folders that have a member of their own.
        others: names of devices and of links that lead to nothing in the tar.
    """

    files: dict[str, tuple[int, int]]
    folders: list[str]
    others: list[str]


def read_members(
    view: View,
    start: int,
    size: int,
    name: str,
    passed: Callable[[int], None] = lambda num_bytes: None,
) -> Members:
    """Reads the headers of the tar that lies at `start` in a file.

    Args:
        view: the file.
        start: where the tar begins in it.
        size: bytes of the tar.
        name: what messages call the tar.
        passed: is told of the bytes that are read through, header by header.

    Raises:
        UserError: it is no tar, is compressed, cut or damaged, or has sparse members.
    """
    members = Members({}, [], [])
    links: dict[str, str] = {}
    window = Window(view, start, size)
    try:
        tar = tarfile.TarFile(fileobj=window, encoding="utf-8")
        before = 0
        while (member := tar.next()) is not None:
            tar.members.clear()  # it would keep them all
            _take(member, start, size, name, members, links)
            passed(tar.offset - before)
            before = tar.offset
    except tarfile.TarError as error:
        raise _explain(view.read_at(start, min(BLOCK, size)), size, name, window, error) from None
    _require_end(view, start, size, name, tar.offset)
    for link in links:
        target = _follow(link, links)
        if target in members.files:
            members.files[link] = members.files[target]
        else:
            members.others.append(link)
    return members


def _take(
    member: tarfile.TarInfo,
    start: int,
    size: int,
    tar_name: str,
    members: Members,
    links: dict[str, str],
) -> None:
    if member.size < 0:
        raise tarfile.ReadError(f"{member.name!r} has a size of {member.size}")
    name = _clean(member.name)
    if not name or any(map(is_hidden, name.split("/"))):
        return
    links.pop(name, None)
    if member.issparse():
        raise UserError(
            f"{tar_name}: {member.name!r} is stored as a sparse file, whose bytes do not lie in one"
            " piece: pack the tar anew without tar's --sparse"
        )
    if member.isfile():
        if member.offset_data + member.size > size:
            raise UserError(
                f"{tar_name} is cut: it ends at byte {size}, within {member.name!r}, which needs"
                f" {member.offset_data + member.size}: fetch it again"
            )
        members.files[name] = (start + member.offset_data, member.size)
    elif member.isdir():
        members.folders.append(name)
    elif member.islnk():
        links[name] = _clean(member.linkname)
    elif member.issym():
        folder = posixpath.dirname(name)
        links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
    else:
        members.others.append(name)


def _follow(name: str, links: dict[str, str]) -> str:
    for _ in range(len(links)):
        if name not in links:
            break
        name = links[name]
    return name


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _require_end(view: View, start: int, size: int, name: str, position: int) -> None:
    """`tarfile` takes any strange block for the end, a tar that was cut between members too."""
    mark = view.read_at(start + position, max(0, min(BLOCK, size - position)))
    if len(mark) < BLOCK:
        raise UserError(
            f"{name} is cut: it ends at byte {size}, without the mark that ends a tar: fetch it"
            " again"
        )
    if any(mark):
        raise UserError(f"{name} is damaged: at byte {position} there is no header: fetch it again")


def _explain(
    head: bytes, size: int, name: str, window: Window, error: tarfile.TarError
) -> UserError:
    for magic, kind, command in _COMPRESSIONS:
        if head.startswith(magic):
            return UserError(
                f"{name} is compressed ({kind}), so that images cannot be read where they lie:"
                f" decompress it first, for example `{command} {name} > photos.tar`"
            )
    if not head:
        return UserError(f"{name} is empty, not a tar")
    if window.fell_short and len(head) == BLOCK:
        return UserError(f"{name} is cut: it ends at byte {size}, within a header: fetch it again")
    return UserError(f"{name} is not a tar, or a damaged one ({error})")
