"""A job whose directories Vertex AI names, in a bucket, by the real clients."""

import json
import subprocess
import sys

import pytest

from common import files
from tests.pipeline.conftest import ROOT
from tests.storage_emulator import BUCKET
from tests.training.conftest import build, draw_photos

pytest_plugins = ["tests.storage_emulator"]
pytestmark = pytest.mark.long

BASE = f"gs://{BUCKET}/job"
SECONDS = 600


def run(environment: dict[str, str], *words: str) -> list[str]:
    """What a container's entry point says."""
    variables = {
        "AIP_MODEL_DIR": f"{BASE}/model/",
        "AIP_CHECKPOINT_DIR": f"{BASE}/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": f"{BASE}/logs/",
        "LOG_FORMAT": "json",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.job", *words],
        check=False,
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # What is printed for people (a table, for example) goes to the log as it is.
    return [json.loads(line)["message"] for line in done.stdout.splitlines() if line[:1] == "{"]


def test_directories_that_vertex_ai_names_lie_in_a_bucket(
    bucket, environment, tmp_path, monkeypatch
):
    data = files.join(bucket, "data")
    build(draw_photos(tmp_path / "photos"), data, num_shards=2)
    train = (
        *("training.train", f"--data_dir={data}", "--eval_split=train"),
        *("--width_multiplier=0.25", "--resolution=32", "--batch_size=20", "--lr=0.001"),
    )
    run(environment, *train, "--epochs=1")
    # The same command goes on, as on another machine: nothing was kept on this one.
    told = run(environment, *train, "--epochs=2")
    assert any(message.startswith("resumed at step 2") for message in told)
    names = {name for name, _ in files.list_tree(BASE)}
    assert {"checkpoints/history.json", "checkpoints/model.json"} <= names
    assert any(name.startswith("logs/events") for name in names)
    assert not any(name.startswith("checkpoints/logs") for name in names)
    run(
        environment,
        *("pipeline.export", f"--checkpoint_path={BASE}/checkpoints", f"--data_dir={data}"),
        *("--split=train", "--formats=saved_model"),
    )
    exported = {name for name, _ in files.list_tree(f"{BASE}/model")}
    assert "export.json" in exported and "saved_model/saved_model.pb" in exported
