"""The same model, the same bytes: takes out of files what changes from one writing to the next."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable

from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

_FINGERPRINT = "fingerprint.pb"  # optional; it holds a random identifier
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # of zip files
_CAPTURE = re.compile(r'key: "_user_specified_name"\s+value \{\s+s: "(\d+)"')


def rewrite_saved_model(directory: str) -> None:
    """Numbers the functions of a SavedModel anew.

    TensorFlow numbers the functions of a process throughout, so that the numbers depend on all that
    was traced before.
    """
    path = os.path.join(directory, "saved_model.pb")
    saved = saved_model_pb2.SavedModel()
    with open(path, "rb") as file:
        saved.ParseFromString(file.read())
    text = text_format.MessageToString(saved)
    functions = [
        function.signature.name
        for graph in saved.meta_graphs
        for function in graph.graph_def.library.function
    ]
    numbers = [number for name in functions if (number := name.rpartition("_")[2]).isdigit()]
    numbers += _CAPTURE.findall(text)
    new = {old: str(i) for i, old in enumerate(sorted(set(numbers), key=int))}
    names = {name: _renumbered(name, new) for name in functions}
    # Also within others' names, those of a loop's placeholders.
    any_name = re.compile(rf"({'|'.join(map(re.escape, names))})(?!\d)")
    text = any_name.sub(lambda match: names[match[1]], text)
    text = _CAPTURE.sub(lambda match: _replaced(match, new[match[1]]), text)
    saved = text_format.Parse(text, saved_model_pb2.SavedModel())
    for graph in saved.meta_graphs:
        library = graph.graph_def.library
        by_name = sorted(library.function, key=lambda function: function.signature.name)
        del library.function[:]
        library.function.extend(by_name)
    with open(path, "wb") as file:
        file.write(saved.SerializeToString(deterministic=True))
    fingerprint = os.path.join(directory, _FINGERPRINT)
    if os.path.exists(fingerprint):
        os.remove(fingerprint)


def rewrite_checkpoint_state(directory: str) -> None:
    """Takes the times of saving out of CheckpointManager's list, which can do without them."""
    path = os.path.join(directory, "checkpoint")
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if "timestamp" not in line]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)


def rewrite_zip(path: str, edit: Callable[[str, bytes], bytes]) -> None:
    """Rewrites a zip file with one date throughout, and every entry passed through `edit`."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, edit(name, archive.read(name))) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        add_to_zip(archive, entries)


def add_to_zip(archive: zipfile.ZipFile, entries: Iterable[tuple[str, bytes]]) -> None:
    """Adds entries, (name, content), that carry no date and no rights of their own."""
    for name, content in entries:
        archive.writestr(zipfile.ZipInfo(name, _FIRST_DATE), content, archive.compression)


def renumbered_json(content: bytes, key: str) -> bytes:
    """JSON in which the numbers under `key`, addresses of objects, count from 0."""
    seen: dict[int, int] = {}

    def renumber(fields: dict) -> dict:
        if key in fields:
            fields[key] = seen.setdefault(fields[key], len(seen))
        return fields

    return json.dumps(json.loads(content, object_hook=renumber)).encode("utf-8")


def _renumbered(name: str, numbers: dict[str, str]) -> str:
    word, _, number = name.rpartition("_")
    return f"{word}_{numbers[number]}" if number in numbers else name


def _replaced(match: re.Match, word: str) -> str:
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return f"{match[0][:start]}{word}{match[0][end:]}"
