"""What an export says of itself: labels and record in every place where they are kept."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from common.errors import UserError
from pipeline import formats
from pipeline.formats.labels import label_lines
from training.models import ModelRecord
from training.models.record import FILE_NAME as RECORD

_REFUSED = "the export disagrees with the model and is not written"

# Where formats that are directories keep them; `.keras` and ONNX rely on those beside them.
_INSIDE = {
    formats.CHECKPOINT: (RECORD,),
    formats.SAVED_MODEL: (f"assets/{formats.LABELS}", RECORD),
}


def require_records(
    directory: str, artifacts: Sequence[formats.Artifact], record: ModelRecord
) -> None:
    """Makes sure that every list of labels and every record in the export is the model's.

    Raises:
        UserError: a file lacks them, or differs; it names the file, and the first line or field.
    """
    labels = label_lines(record)
    fields = json.loads(json.dumps(record.to_json()))
    for place, content in _own_words(directory, artifacts):
        text = content.decode("utf-8", "replace")
        if place.endswith(formats.LABELS):
            difference = _difference_of_labels(text.removesuffix("\n").split("\n"), labels)
        else:
            difference = _difference_of_records(_parsed(text), fields)
        if difference:
            raise UserError(f"{_REFUSED}: {place} {difference}")


def _own_words(
    directory: str, artifacts: Sequence[formats.Artifact]
) -> Iterator[tuple[str, bytes]]:
    """Path, relative to the export, and content of every list of labels and every record."""
    places = [formats.LABELS, RECORD]
    for artifact in artifacts:
        places += [f"{artifact.path}/{name}" for name in _INSIDE.get(artifact.format, ())]
    for place in places:
        path = os.path.join(directory, place)
        if not os.path.isfile(path):
            raise UserError(f"{_REFUSED}: it lacks {place}")
        with open(path, "rb") as file:
            yield place, file.read()
    for artifact in artifacts:
        if artifact.format in formats.LITERT:
            yield from _attached(directory, artifact.path)


def _attached(directory: str, place: str) -> Iterator[tuple[str, bytes]]:
    """As above, of a LiteRT file, which keeps them in an archive behind the model."""
    try:
        with zipfile.ZipFile(os.path.join(directory, place)) as archive:
            held = [(name, archive.read(name)) for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        held = []
    for wanted in (formats.LABELS, RECORD):
        if not any(name == wanted for name, _ in held):
            raise UserError(f"{_REFUSED}: {place} lacks {wanted} in the archive behind the model")
    for name, content in held:
        if name.endswith((formats.LABELS, RECORD)):
            yield f"{place}, {name}", content


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _difference_of_labels(found: list[str], expected: list[str]) -> str:
    """What is wrong with a list of labels, in words; '' if nothing is."""
    if found == expected:
        return ""
    if len(found) != len(expected):
        return f"has {len(found)} labels, the model {len(expected)} outputs"
    place = next(
        i for i, pair in enumerate(zip(found, expected, strict=True)) if len(set(pair)) > 1
    )
    same = (
        "the model's labels in another order"
        if sorted(found) == sorted(expected)
        else ("labels that are not the model's")
    )
    return f"holds {same}: output {place} is {expected[place]!r}, the file says {found[place]!r}"


def _difference_of_records(found: Any, expected: dict[str, Any]) -> str:
    """The first field in which two records differ, in words; '' if none does."""
    if not isinstance(found, dict):
        return "is no record of a model"
    for name, value in expected.items():
        if name == "classes" and name in found:
            if difference := _difference_of_labels(list(found[name]), value):
                return difference
        elif isinstance(value, dict) and isinstance(found.get(name), dict):
            for inner in value:
                if found[name].get(inner) != value[inner]:
                    return _differs(f"{name}.{inner}", found[name].get(inner), value[inner])
        elif found.get(name) != value:
            return _differs(name, found.get(name), value)
    return ""


def _differs(name: str, found: Any, expected: Any) -> str:
    return f"says that {name} is {found!r}, the model's is {expected!r}"
