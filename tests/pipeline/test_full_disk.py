"""A disk that fills up under a command: one line, and nothing half-written under a final name."""

import os
import pathlib
import shutil
import subprocess

import pytest

from .conftest import TINY, contents
from .test_mistakes import FAILED, require_one_line

NUM_BYTES = 1 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, mounted for the test."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={NUM_BYTES}", "tmpfs", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"file systems cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def fill(disk: pathlib.Path, leave: int) -> None:
    status = os.statvfs(disk)
    (disk / "fill").write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - leave)))


def require_no_leavings(disk: pathlib.Path, *results: str) -> None:
    left = contents(disk)
    assert not [path for path in left if ".tmp-" in path]
    assert not [path for path in left if os.path.basename(path) in results]


def test_build(command, photos, small_disk):
    fill(small_disk, leave=60_000)
    flags = {"source": photos / "train", "output_dir": small_disk / "data"}
    outcome = command("build", **flags)
    require_one_line(outcome, FAILED, "free some space")
    require_no_leavings(small_disk, "manifest.json")
    (small_disk / "fill").unlink()
    assert command("build", **flags).code == 0


def test_train(command, data_dir, small_disk):
    outcome = command("train", data_dir=data_dir, model_dir=small_disk / "model", **TINY)
    require_one_line(outcome, FAILED, "the disk is full")
    require_no_leavings(small_disk)
    assert not list(small_disk.glob("model/checkpoints/*.index"))


def test_evaluate(command, data_dir, model_dir, small_disk):
    fill(small_disk, leave=0)
    output = small_disk / "evaluation.json"
    outcome = command("evaluate", checkpoint_path=model_dir, data_dir=data_dir, output=output)
    require_one_line(outcome, FAILED, f"the disk is full while writing {output}")
    assert not output.exists()
    require_no_leavings(small_disk)


@pytest.mark.parametrize("leave", [300_000, 1_000_000])
def test_export_keeps_the_one_before(command, data_dir, model_dir, good_export, small_disk, leave):
    export_dir = small_disk / "export"
    export_dir.mkdir()
    shutil.copy(good_export / "export.json", export_dir)
    before = contents(export_dir)
    fill(small_disk, leave)
    outcome = command("export", checkpoint_path=model_dir, data_dir=data_dir, export_dir=export_dir)
    require_one_line(outcome, FAILED, "the disk is full")
    assert contents(export_dir) == before
    require_no_leavings(small_disk)
    assert sorted(os.listdir(small_disk)) == ["export", "fill"]
