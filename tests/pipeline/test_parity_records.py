"""Labels and records beside an export, and files that no interpreter opens."""

import dataclasses
import json
import pathlib
import zipfile

import pytest

from common.errors import UserError
from pipeline import formats

from .conftest import CLASSES
from .parity import (
    LITERT,
    Trained,
    gate,
    write_beside,
)

pytest_plugins = ["tests.pipeline.parity"]

SHUFFLED = "".join(f"{name}\n" for name in (CLASSES[1], CLASSES[0], *CLASSES[2:]))


def shuffle_text(path: pathlib.Path) -> None:
    path.write_text(SHUFFLED)


def shuffle_record(path: pathlib.Path) -> None:
    values = json.loads(path.read_text())
    values["classes"] = SHUFFLED.split()
    path.write_text(json.dumps(values))


def shuffle_metadata(path: pathlib.Path) -> None:
    """As TFLite's metadata keep files: in an archive behind the model."""
    rewrite_archive(path, {"labels.txt": SHUFFLED})


def rewrite_archive(path: pathlib.Path, changes: dict[str, str | None]) -> None:
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name).decode() for name in archive.namelist()} | changes
    path.write_bytes(MODEL)
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in held.items():
            if text is not None:
                archive.writestr(name, text)


MODEL = b"a model" * 100


def write_words(trained: Trained, directory: pathlib.Path) -> list[formats.Artifact]:
    """An export of labels and records alone."""
    from pipeline.formats.labels import label_text
    from pipeline.formats.litert import attach_record

    for folder in ("checkpoint", "saved_model/assets", "litert"):
        (directory / folder).mkdir(parents=True)
    write_beside(trained, directory)
    for folder in ("checkpoint", "saved_model"):
        trained.record.write(str(directory / folder))
    (directory / "saved_model/assets/labels.txt").write_text(label_text(trained.record))
    for name in LITERT:
        (directory / formats.PATHS[name]).write_bytes(MODEL)
        attach_record(str(directory / formats.PATHS[name]), trained.record)
    return [formats.Artifact(name, path, 0, "") for name, path in formats.PATHS.items()]


PLACES = [
    "labels.txt",
    "model.json",
    "checkpoint/model.json",
    "saved_model/assets/labels.txt",
    "saved_model/model.json",
]


@pytest.mark.parametrize("place", PLACES)
def test_missing_labels_and_records_are_named(trained, tmp_path, place):
    artifacts = write_words(trained, tmp_path)
    (tmp_path / place).unlink()
    with pytest.raises(UserError, match=f"is not written: it lacks {place}$"):
        gate(trained, tmp_path, artifacts)


@pytest.mark.parametrize("missing", ["labels.txt", "model.json", "all"])
@pytest.mark.parametrize("name", LITERT)
def test_missing_metadata_are_named(trained, tmp_path, name, missing):
    artifacts = write_words(trained, tmp_path)
    path = tmp_path / formats.PATHS[name]
    if missing == "all":
        path.write_bytes(MODEL)
    else:
        rewrite_archive(path, {missing: None})
    lacks = "labels.txt" if missing == "all" else missing
    with pytest.raises(UserError, match=f"{formats.PATHS[name]} lacks {lacks} in the archive"):
        gate(trained, tmp_path, artifacts)


def test_complete_labels_and_records_pass(trained, tmp_path):
    from pipeline.parity.records import require_records

    require_records(str(tmp_path), write_words(trained, tmp_path), trained.record)


@pytest.mark.parametrize(
    ("place", "shuffle"),
    [
        ("labels.txt", shuffle_text),
        ("saved_model/assets/labels.txt", shuffle_text),
        ("saved_model/model.json", shuffle_record),
        ("model.json", shuffle_record),
        ("checkpoint/model.json", shuffle_record),
        *((formats.PATHS[name], shuffle_metadata) for name in LITERT),
    ],
)
def test_shuffled_labels_are_named_wherever_they_are(trained, tmp_path, place, shuffle):
    artifacts = write_words(trained, tmp_path)
    shuffle(tmp_path / place)
    with pytest.raises(UserError) as raised:
        gate(trained, tmp_path, artifacts)
    message = str(raised.value)
    assert message.startswith("the export disagrees with the model and is not written: " + place)
    assert "in another order: output 0 is 'cat', the file says 'dog'" in message


def test_a_record_that_says_otherwise_is_named(trained, tmp_path):
    record = dataclasses.replace(trained.record, evaluation_preprocessing="bicubic")
    write_beside(trained, tmp_path)
    record.write(str(tmp_path))
    with pytest.raises(
        UserError, match=r"model\.json says that evaluation_preprocessing is 'bicubic'"
    ):
        gate(trained, tmp_path, [])


def litert_artifact(trained, directory: pathlib.Path, content: bytes) -> list[formats.Artifact]:
    from pipeline.formats.litert import attach_record

    write_beside(trained, directory)
    (directory / "litert").mkdir()
    (directory / "litert/float32.tflite").write_bytes(content)
    attach_record(str(directory / "litert/float32.tflite"), trained.record)
    return [formats.Artifact(formats.LITERT_FLOAT32, "litert/float32.tflite", 0, "")]


def test_a_crash_of_the_interpreter_is_one_line(trained, tmp_path, monkeypatch):
    from pipeline.parity import fresh

    script = tmp_path / "crash.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(fresh, "_PROBE", str(script))
    with pytest.raises(UserError) as raised:
        gate(trained, tmp_path, litert_artifact(trained, tmp_path, b""))
    assert "litert/float32.tflite" in str(raised.value)
    assert "SIGSEGV" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_none_is_one_line(trained, tmp_path):
    with pytest.raises(UserError) as raised:
        gate(trained, tmp_path, litert_artifact(trained, tmp_path, b"no model"))
    assert str(raised.value).startswith(
        "litert/float32.tflite does not run in a fresh process: ValueError: "
    )


def test_a_keras_file_that_needs_this_project_is_refused(trained, tmp_path):
    write_beside(trained, tmp_path)
    trained.model.save(tmp_path / "model.keras")  # with layers of our own
    artifacts = [formats.Artifact(formats.KERAS, "model.keras", 0, "")]
    with pytest.raises(UserError, match=r"model\.keras does not run in a fresh process: "):
        gate(trained, tmp_path, artifacts)
