"""`python -m pipeline.submit` as tests run it, as a fixture."""

from __future__ import annotations

import dataclasses
import os

import pytest
import yaml

from common.command import run_to_exit_code
from pipeline.submit import SubmitConfig, submit

WHERE = ("--project=my-project", "--region=us-central1", "--bucket=my-bucket")
TRAIN = ("--stage=train", "--experiment=mobilenet_v3_large_torchvision")
OFFLINE = "--noask_cloud"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    text: str
    error: str
    spec: dict | None


@pytest.fixture
def run(tmp_path, capfd):
    """Runs the command with the flags of `WHERE`, unless others are given."""

    def run(*words: str) -> Outcome:
        specs = tmp_path / "specs"
        argv = ["submit", *WHERE, f"--spec_dir={specs}", *words]
        code = run_to_exit_code(submit, SubmitConfig, argv=argv, passthrough="flags of the stage")
        text, error = capfd.readouterr()
        written = sorted(specs.glob("*.yaml"), key=os.path.getmtime) if specs.is_dir() else []
        spec = yaml.safe_load(written[-1].read_text(encoding="utf-8")) if written else None
        return Outcome(code, text, error, spec)

    return run


def words_in(spec: dict, pool: int = 0) -> list[str]:
    return spec["workerPoolSpecs"][pool]["containerSpec"]["args"]
