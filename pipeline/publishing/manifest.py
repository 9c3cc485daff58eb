"""What a version holds: each file with its size and checksums."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from common.errors import UserError

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """One file of a version.

    Attributes:
        path: relative to the version, with '/' between its parts.
        bytes: its size.
        crc32c: as Cloud Storage prints it: base64 of four bytes, the highest first.
        sha256: in hexadecimal digits.
    """

    path: str
    bytes: int
    crc32c: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class VersionManifest:
    """The file `manifest.json` of a version, which is there if and only if the version is whole.

    Attributes:
        version: its number.
        content_sha256: hash over all files; two exports of one hash are one version.
        published: when, in UTC, as ISO 8601 has it.
        model: name of the architecture; '' where the export does not tell.
        top_1: accuracy that the export's evaluation found; None where it does not tell.
        files: sorted by path.
    """

    version: int
    content_sha256: str
    published: str
    model: str
    top_1: float | None
    files: tuple[FileEntry, ...]

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)

    def to_bytes(self) -> bytes:
        return json_bytes(dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> VersionManifest:
        """Reads a manifest that lies at `path`.

        Raises:
            UserError: it is none.
        """
        values = json_object(content, path)
        try:
            entries = tuple(FileEntry(**entry) for entry in values.pop("files"))
            return cls(files=entries, **values)
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is no manifest of a published version") from None


def content_sha256(entries: Iterable[FileEntry]) -> str:
    """Hash over the paths and hashes of files, whatever order they come in."""
    lines = sorted(f"{entry.path}\0{entry.sha256}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def json_bytes(value: Any) -> bytes:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode()


def json_object(content: bytes, path: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: it is no JSON, or no object.
    """
    try:
        value = json.loads(content)
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not what publishing writes: a JSON object was expected")
    return value
