"""The Jobs of a tiny line, really run: one hands to the next nothing but what lies on disk."""

import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest

from tests.pipeline.conftest import TINY, draw_splits
from training.stopping import RESUME_ME
from training.worker_process import free_ports

from .cluster import Process, jobs_of, objects_of, processes_of, verdict_on

pytestmark = pytest.mark.long


class Node:
    """Runs the processes of Jobs as a cluster would, with addresses of this machine."""

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._count = 0

    def start(self, process: Process, addresses: dict[str, str]) -> subprocess.Popen:
        """Starts one in a directory of its own, knowing nothing but its variables."""
        self._count += 1
        directory = self._directory / f"{self._count}"
        directory.mkdir(parents=True)
        variables = dict(process.variables)
        for name, address in addresses.items():
            if "TF_CONFIG" in variables:
                variables["TF_CONFIG"] = variables["TF_CONFIG"].replace(name, address)
        assert process.words[0] == "python"
        return subprocess.Popen(
            [sys.executable, *process.words[1:]],
            cwd=directory,
            env={"PATH": os.environ["PATH"], **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, job: dict, preempted: bool = False) -> list[int]:
        """Runs all processes of a Job to their end, or asks them to end at their first word."""
        described = processes_of(job)
        addresses = {}
        if len(described) > 1:
            ports = free_ports(len(described))
            names = json.loads(described[0].variables["TF_CONFIG"])["cluster"]["worker"]
            addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)}
        started = [self.start(process, addresses) for process in described]
        try:
            if preempted:
                for child in started:
                    assert child.stdout.readline()
                for child in started:
                    child.terminate()
            said = [child.communicate(timeout=600)[0] for child in started]
        finally:
            for child in started:
                child.kill()
        codes = [child.returncode for child in started]
        print(*said, sep="\n")  # pytest shows it if the test fails
        return codes


def test_jobs_hand_over_by_paths_alone(tmp_path):
    photos = draw_splits(tmp_path / "volume" / "photos")
    work = tmp_path / "volume" / "work"
    train_flags = [f"--{name}={value}" for name, value in TINY.items()]
    files = objects_of(
        f"--mount={tmp_path / 'volume'}",
        f"--work_dir={work}",
        "--dataset=tiny",
        f"--train_source={photos / 'train'}",
        f"--validation_source={photos / 'validation'}",
        f"--train_flags={shlex.join(train_flags)}",
        "--workers=2",
    )
    node = Node(tmp_path / "nodes")
    jobs = jobs_of(files)
    assert len(jobs) == 9
    for job in jobs:
        workers = len(processes_of(job))
        if job["metadata"]["name"] == "work-train":
            assert workers == 2
            codes = node.run(job, preempted=True)
            assert codes == [RESUME_ME] * 2
            assert [verdict_on(job, code) for code in codes] == ["Ignore"] * 2
            assert not (work / "model" / "history.json").exists()
        assert node.run(job) == [0] * workers
    history = json.loads((work / "model" / "history.json").read_text())
    evaluation = json.loads((work / "evaluation.json").read_text())
    export = json.loads((work / "export" / "export.json").read_text())
    assert [row["epoch"] for row in history["epochs"]] == [1, 2]
    assert evaluation["num_examples"] == 24
    assert export["metrics"]["top_1"] == evaluation["top_1"]
    assert json.loads((work / "published" / "LATEST.json").read_text())["version"] == 1
    assert "mobilenet_v1 0.25 on tiny" in (work / "report.html").read_text(encoding="utf-8")
    # Nothing was left where a process happened to be.
    assert not [path for path in (tmp_path / "nodes").rglob("*") if path.is_file()]


def test_a_job_that_cannot_succeed_ends_at_once(tmp_path):
    (job, *_) = jobs_of(
        objects_of(
            f"--mount={tmp_path}",
            f"--work_dir={tmp_path / 'work'}",
            "--dataset=tiny",
            f"--train_source={tmp_path / 'not there'}",
        )
    )
    (code,) = Node(tmp_path / "nodes").run(job)
    assert verdict_on(job, code) == "FailJob"
