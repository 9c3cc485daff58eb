"""Publishing: what a version is, what is refused, and by which names it is found."""

import base64
import hashlib
import json
import os
import pathlib

import google_crc32c
import pytest

from common import files
from common.errors import UserError
from pipeline.publishing import resolve
from tests.pipeline.publishing import MODEL, contents_of, flip_a_bit, held_by, make_export

pytest_plugins = ["tests.storage_emulator", "tests.pipeline.publishing"]


def test_a_version_is_the_export_with_a_manifest_of_its_checksums(
    place, request, tmp_path, publishes
):
    export = make_export(tmp_path / "export")
    out = publishes(export_dir=export, to=place, alias="stable,canary")
    assert "published as version 1" in out and "latest is version 1" in out
    held = held_by(place, request)
    given = contents_of(export)
    version = {k.removeprefix("versions/1/"): v for k, v in held.items() if "versions/1/" in k}
    manifest = json.loads(version.pop("manifest.json"))
    assert version == given
    assert [entry["path"] for entry in manifest["files"]] == sorted(given)
    for entry in manifest["files"]:
        content = given[entry["path"]]
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        checksum = google_crc32c.Checksum(content).digest()
        assert entry["crc32c"] == base64.b64encode(checksum).decode()
    assert (manifest["model"], manifest["top_1"]) == ("mobilenet_v1", 0.6875)
    for name in ("LATEST", "aliases/stable", "aliases/canary"):
        assert json.loads(held[f"{name}.json"])["version"] == 1
    for name in ("latest", "stable", "1", 1):
        found = resolve(place, name)
        assert (found.version, found.path) == (1, files.join(place, "versions", "1"))
    assert files.read_bytes(files.join(resolve(place).path, "labels.txt")) == given["labels.txt"]


def test_the_same_content_again_transfers_nothing(place, request, tmp_path, publishes):
    export = make_export(tmp_path / "export")
    publishes(export_dir=export, to=place)
    before = held_by(place, request)
    if files.is_remote(place):
        request.getfixturevalue("service").fail(None)  # count from here
    out = publishes(export_dir=make_export(tmp_path / "same"), to=place)
    assert "is version 1 of" in out and "nothing was transferred" in out
    assert held_by(place, request) == before
    if files.is_remote(place):
        commands = {line.split()[0] for line in request.getfixturevalue("service").requests}
        assert commands == {"GET"}


def test_versions_never_change_and_names_move(place, request, tmp_path, publishes, refuses):
    first, second = make_export(tmp_path / "1", 1), make_export(tmp_path / "2", 2)
    publishes(export_dir=first, to=place, alias="stable")
    before = {k: v for k, v in held_by(place, request).items() if k.startswith("versions/1")}
    publishes(export_dir=second, to=place)
    held = held_by(place, request)
    assert {k: v for k, v in held.items() if k.startswith("versions/1")} == before
    assert (resolve(place).version, resolve(place, "stable").version) == (2, 1)
    assert "stable is version 2 (was version 1)" in publishes(
        to=place, alias="stable", version="latest"
    )
    assert resolve(place, "stable").version == 2
    # Back to the older one; LATEST stays, since the newest version is still the newest.
    out = publishes(export_dir=first, to=place, alias="stable")
    assert "is version 1 of" in out and "latest is version 2" in out
    assert (resolve(place).version, resolve(place, "stable").version) == (2, 1)
    shown = publishes(to=place, list=True)
    rows = [
        [cell.strip() for cell in line.split("│")[1:3]]
        for line in shown.splitlines()
        if line.startswith("│")
    ]
    assert [rows[0], rows[1]] == [["1", "stable"], ["2", "latest"]]
    code, line = refuses(to=place, alias="stable", version=7)
    assert code == 1 and "has no version 7: it has 1, 2, stable" in line


def test_a_number_can_be_asked_for_but_not_taken_twice(place, tmp_path, publishes, refuses):
    first, second = make_export(tmp_path / "1", 1), make_export(tmp_path / "2", 2)
    publishes(export_dir=first, to=place, version=5)
    assert resolve(place).version == 5
    code, line = refuses(export_dir=second, to=place, version=5)
    assert code == 1 and "version 5 of" in line and "versions never change" in line
    code, line = refuses(export_dir=first, to=place, version=6)
    assert code == 2 and "is version 5 of" in line
    publishes(export_dir=second, to=place)
    assert resolve(place).version == 6
    assert "nothing was transferred" in publishes(export_dir=first, to=place, version=5)


def test_what_pipeline_export_writes_is_taken(good_export, tmp_path, publishes):
    publishes(export_dir=good_export, to=tmp_path / "published")
    found = resolve(str(tmp_path / "published"))
    version = contents_of(pathlib.Path(found.path))
    del version["manifest.json"]
    assert version == contents_of(good_export)
    assert found.manifest.model == "mobilenet_v1"


def test_a_version_can_be_published_on_to_another_place(in_a_bucket, tmp_path, publishes):
    export = make_export(tmp_path / "export")
    publishes(export_dir=export, to=in_a_bucket)
    publishes(export_dir=resolve(in_a_bucket).path, to=tmp_path / "there")
    found = resolve(str(tmp_path / "there"))
    assert found.manifest.content_sha256 == resolve(in_a_bucket).manifest.content_sha256
    copied = contents_of(pathlib.Path(found.path))
    del copied["manifest.json"]
    assert copied == contents_of(export)


def edit_summary(directory: pathlib.Path, edit) -> None:
    path = directory / "export.json"
    summary = json.loads(path.read_text())
    edit(summary)
    path.write_text(json.dumps(summary))


REFUSED = {
    "gate not passed": (
        lambda d: edit_summary(d, lambda s: s["parity"].update(passed=False)),
        "has not passed the parity gate",
    ),
    "gate of before": (
        lambda d: edit_summary(d, lambda s: s["parity"].pop("passed")),
        "has not passed the parity gate",
    ),
    "no gate": (lambda d: edit_summary(d, lambda s: s.pop("parity")), "the parity gate"),
    "a bit": (
        lambda d: flip_a_bit(d / "saved_model/variables/variables.index"),
        "saved_model has changed since the parity gate",
    ),
    "a bit in a file": (
        lambda d: flip_a_bit(d / "litert/float32.tflite"),
        "litert/float32.tflite has changed since",
    ),
    "shuffled labels": (
        lambda d: (d / "labels.txt").write_bytes(b"background\ndog\ncat\n"),
        "labels.txt has changed since",
    ),
    "another record": (
        lambda d: (d / "model.json").write_text(json.dumps({**MODEL, "classes": ["a", "b"]})),
        "model.json has changed since",
    ),
    "another card": (
        lambda d: (d / "MODEL_CARD.md").write_text("# x"),
        "MODEL_CARD.md has changed",
    ),
    "a card that is not listed": (
        lambda d: edit_summary(d, lambda s: s["files"].pop()),
        "holds MODEL_CARD.md, which export.json",
    ),
    "missing": (
        lambda d: (d / "litert/float32.tflite").unlink(),
        "litert/float32.tflite is missing",
    ),
    "stray": (lambda d: (d / "notes.txt").write_bytes(b"x"), "holds notes.txt, which export.json"),
    "stray inside": (
        lambda d: (d / "saved_model/extra").write_bytes(b"x"),
        "saved_model has changed",
    ),
    "link": (lambda d: (d / "saved_model/link").symlink_to("/etc"), "saved_model/link is no plain"),
    "path outside": (
        lambda d: edit_summary(d, lambda s: s["artifacts"][0].update(path="../1")),
        "lists no artifacts of its own",
    ),
    "no JSON": (lambda d: (d / "export.json").write_bytes(b"{"), "cannot be read as JSON"),
    "no export": (lambda d: (d / "export.json").unlink(), "holds no export.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_did_not_pass_the_gate_as_it_is_goes_nowhere(tmp_path, refuses, case):
    export = make_export(tmp_path / "export")
    damage, message = REFUSED[case]
    damage(export)
    code, line = refuses(export_dir=export, to=tmp_path / "published")
    assert code == 1
    assert message in line
    assert not (tmp_path / "published").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"export_dir": "nowhere"}, "--export_dir=nowhere is no directory"),
        ({}, "give --export_dir to publish, --alias to move a name, or --list"),
        ({"alias": "stable"}, "--alias and --version go together"),
        ({"alias": "latest", "version": 1}, "--alias=latest is no name"),
        ({"alias": "12", "version": 1}, "--alias=12 is no name"),
        ({"alias": "../up", "version": 1}, "--alias=../up is no name"),
        ({"export_dir": "x", "version": "0"}, "--version=0 is no number"),
        ({"export_dir": "x", "num_parallel": "0"}, "--num_parallel must be"),
    ],
)
def test_wrong_flags_are_named(tmp_path, refuses, flags, message):
    code, line = refuses(to=tmp_path, **flags)
    assert code == 2
    assert message in line
    assert os.listdir(tmp_path) == []


def test_names_that_lead_nowhere_are_one_line(place, tmp_path):
    with pytest.raises(UserError, match="has no version latest: nothing is published there"):
        resolve(place)
    with pytest.raises(UserError, match=r"has no version \.\./x: nothing is published there"):
        resolve(place, "../x")


def test_a_bucket_that_is_not_there_is_one_line(service, tmp_path, refuses):
    code, line = refuses(export_dir=make_export(tmp_path / "export"), to="gs://no-such-bucket/x")
    assert code == 1 and "there is no bucket no-such-bucket" in line


def test_a_foreign_directory_of_that_number_is_left_alone(
    place, request, tmp_path, publishes, refuses
):
    files.write_bytes(files.join(place, "versions", "3", "labels.txt"), b"theirs")
    export = make_export(tmp_path / "export")
    code, line = refuses(export_dir=export, to=place, version=3)
    assert code == 1 and "version 3 of" in line
    publishes(export_dir=export, to=place)
    assert resolve(place).version == 4
    held = held_by(place, request)
    theirs = {name: content for name, content in held.items() if name.startswith("versions/3")}
    assert theirs == {"versions/3/labels.txt": b"theirs"}
