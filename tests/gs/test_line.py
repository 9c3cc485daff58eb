"""The whole line in a bucket, by the real clients: what comes of local files, whatever happens."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from common import files
from tests.pipeline.conftest import ROOT, TINY, draw_splits
from tests.storage_emulator import BUCKET, CUT, RESET
from tests.training.runs import variables_of
from training.checkpoints import list_checkpoints

pytest_plugins = ["tests.storage_emulator"]
pytestmark = pytest.mark.long

TRAIN_FLAGS = " ".join(f"--{name}={value}" for name, value in TINY.items())
SECONDS = 600


class Line:
    """One process that runs all stages."""

    def __init__(self, photos: str, work_dir: str, environment: dict[str, str]):
        flags = f"--checkpoint_every_steps=2 --steps_per_call=1 {TRAIN_FLAGS}"
        self._log = pathlib.Path(environment["XDG_CACHE_HOME"] + ".log")
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pipeline.run"),
                    *(f"--dataset={photos}", f"--work_dir={work_dir}", f"--train_flags={flags}"),
                ],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self) -> str:
        """Waits until it has done all; what it printed."""
        try:
            assert self.process.wait(SECONDS) == 0, self._log.read_text()
        finally:
            if self.process.poll() is None:
                self.kill()
        return self._log.read_text()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def wait_for(name: str, storage_proxy, line: Line) -> None:
    """Waits until an object is there, past faults and caches."""
    deadline = time.monotonic() + SECONDS
    where = f"/storage/v1/b/{BUCKET}/o/{name.replace('/', '%2F')}"
    while storage_proxy.ask("GET", where).status != 200:
        assert time.monotonic() < deadline and line.process.poll() is None, line.end()
        time.sleep(0.1)


def weights_of(model_dir: str) -> dict[str, np.ndarray]:
    """All that the newest checkpoint holds, by TensorFlow's reader of local files."""
    with files.local_copy(files.join(model_dir, "checkpoints")) as directory:
        assert tf.train.latest_checkpoint(directory) == list_checkpoints(directory)[-1]
        return variables_of(list_checkpoints(directory)[-1])


def in_any_place(value, work_dir: str):
    """JSON without what differs by place, time or speed."""
    if isinstance(value, dict):
        without = ("images_per_second", "waits_for_input", "seconds")
        return {k: in_any_place(v, work_dir) for k, v in value.items() if k not in without}
    if isinstance(value, list):
        return [in_any_place(part, work_dir) for part in value]
    return value.replace(work_dir, "WORK") if isinstance(value, str) else value


def test_a_line_that_is_killed_in_a_faulty_bucket_ends_as_one_of_local_files(
    tmp_path, environment, storage_proxy
):
    photos = draw_splits(tmp_path / "photos")
    local = str(tmp_path / "work")
    Line(str(photos), local, environment).end()

    bucket = f"gs://{BUCKET}"
    with files.atomic_directory(f"{bucket}/photos") as directory:
        os.rmdir(directory)
        photos.rename(directory)
    work = f"{bucket}/runs/first"
    storage_proxy.fail(503, every=23)
    first = Line(f"{bucket}/photos", work, environment)
    wait_for("runs/first/model/checkpoints/ckpt-4.index", storage_proxy, first)
    first.kill()
    assert not files.exists(files.join(work, "evaluation.json"))
    storage_proxy.fail(RESET, every=31)
    text = Line(f"{bucket}/photos", work, environment).end()
    assert "resumed at step " in text and storage_proxy.num_faults > 5
    assert {"TSL", "gcloud-python"} <= storage_proxy.clients  # TensorFlow calls itself TSL
    storage_proxy.fail(None)

    names = {name for name, _ in files.list_tree(work)}
    for name, _ in files.list_tree(files.join(local, "data")):
        ours, theirs = (files.read_bytes(files.join(p, "data", name)) for p in (work, local))
        assert ours == theirs, name
    ours, theirs = (weights_of(files.join(place, "model")) for place in (work, local))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    for name in ("evaluation.json", "model/history.json"):
        ours, theirs = (
            in_any_place(files.read_json(files.join(place, name)), place) for place in (work, local)
        )
        assert ours == theirs, name
    exported = [
        {(row["format"], row["path"]) for row in files.read_json(path)["artifacts"]}
        for path in (files.join(place, "export", "export.json") for place in (work, local))
    ]
    assert exported[0] == exported[1] and exported[0]
    assert {name for name, _ in files.list_tree(files.join(local, "export"))} == {
        name.removeprefix("export/") for name in names if name.startswith("export/")
    }
    report = files.read_bytes(files.join(work, "report.html"))
    assert report.lstrip().lower().startswith(b"<!doctype html")
    assert not [name for name in names if "temp" in name or ".tmp-" in name]

    # All is finished, and is seen to be so.
    storage_proxy.fail(CUT, every=17)
    text = Line(f"{bucket}/photos", work, environment).end()
    assert text.count(": finished") == 9 and "done in" not in text

    storage_proxy.fail(None)
    version = files.join(
        work, "published", files.read_json(f"{work}/published/LATEST.json")["path"]
    )
    for name, _ in files.list_tree(f"{work}/export"):
        assert files.read_bytes(f"{version}/{name}") == files.read_bytes(f"{work}/export/{name}")
