"""Jobs as Vertex AI starts them: processes that know each other by CLUSTER_SPEC or TF_CONFIG."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.training.conftest import build, draw_photos
from tests.training.distribution import ROOT, batches_of
from tests.training.runs import history_of
from training.worker_process import free_ports

# The container's ENTRYPOINT; `infra/docker/` has the same words.
ENTRYPOINT = (sys.executable, "-m", "pipeline.job")
SECONDS = 600
EPOCHS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("environment")
    return build(draw_photos(root / "photos", 32), root / "data", num_shards=4)


class Job:
    """The processes of one job on this machine, a log each.

    Args:
        directory: where the run and the logs lie.
        data_dir: what is trained on.
        variables: what describes the cluster to a task: from (role, index, addresses by role).
        roles: how many tasks there are of each role.
    """

    def __init__(self, directory: pathlib.Path, data_dir: str, variables, roles: dict[str, int]):
        ports = iter(free_ports(sum(roles.values())))
        self._addresses = {
            role: [f"127.0.0.1:{next(ports)}" for _ in range(number)]
            for role, number in roles.items()
        }
        self._directory, self._data, self._variables = directory, data_dir, variables
        self.model_dir = directory / "run/checkpoints"
        self.processes: dict[tuple[str, int], subprocess.Popen] = {}

    def start(self, role: str, index: int = 0, *flags: str) -> subprocess.Popen:
        """Starts a task with what Vertex AI puts into its environment."""
        base = f"{self._directory}/run"
        environment = {
            **os.environ,
            **self._variables(role, index, self._addresses),
            "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
            "AIP_MODEL_DIR": f"{base}/model/",
            "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
            "CLOUD_ML_JOB_ID": "1",
            "LOG_FORMAT": "json",
        }
        words = [
            *ENTRYPOINT,
            "training.train",
            f"--data_dir={self._data}",
            *("--width_multiplier=0.25", "--resolution=32", "--optimizer_name=momentum"),
            *("--batch_size=32", "--lr=0.02", f"--epochs={EPOCHS}", "--eval_split=train"),
            *("--checkpoint_every_steps=1", "--steps_per_call=1", "--log_examples"),
            *flags,
        ]
        with open(self.log(role, index), "ab") as log:
            self.processes[role, index] = subprocess.Popen(
                words, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        return self.processes[role, index]

    def log(self, role: str, index: int = 0) -> pathlib.Path:
        return self._directory / f"{role}-{index}.log"

    def messages(self, role: str, index: int = 0) -> list[str]:
        """What a task said as entries of the log; native code writes plain lines among them."""
        lines = self.log(role, index).read_text().splitlines()
        entries = [json.loads(line)["message"] for line in lines if line.startswith("{")]
        # What Python says is all of it in entries.
        assert "finished: all" in entries[-1] and not any("Traceback" in line for line in lines)
        return entries

    def end(self) -> None:
        """Waits for all; each must have done its work."""
        for (role, index), process in self.processes.items():
            code = process.wait(SECONDS)
            assert code == 0, self.log(role, index).read_text()

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def job(tmp_path, data):
    with contextlib.ExitStack() as stack:

        def make(variables, **roles: int) -> Job:
            made = Job(tmp_path, data, variables, roles)
            stack.callback(made.kill)
            return made

        yield make


def cluster_spec(role: str, index: int, addresses: dict[str, list[str]]) -> dict[str, str]:
    """As in Vertex AI's description of CLUSTER_SPEC."""
    pools = {"chief": 0, "worker": 1, "ps": 2, "evaluator": 3}
    described = {
        "cluster": {f"workerpool{pools[name]}": hosts for name, hosts in addresses.items()},
        "environment": "cloud",
        "task": {"type": f"workerpool{pools[role]}", "index": index},
        "job": json.dumps({"workerPoolSpecs": []}),
    }
    return {"CLUSTER_SPEC": json.dumps(described)}


def tf_config(role: str, index: int, addresses: dict[str, list[str]]) -> dict[str, str]:
    """As Vertex AI sets it for TensorFlow, besides CLUSTER_SPEC."""
    described = {
        "cluster": addresses,
        "environment": "cloud",
        "task": {"type": role, "index": index},
    }
    return {"TF_CONFIG": json.dumps(described), **cluster_spec(role, index, addresses)}


def require_whole(job: Job) -> None:
    """The run is finished, and every global batch was one of all examples of its epoch."""
    history = history_of(job.model_dir)
    assert [row["epoch"] for row in history["epochs"]] == list(range(1, EPOCHS + 1))
    assert history["finished_epochs"] == EPOCHS
    batches = batches_of(job.model_dir)
    assert sorted(batches) == list(range(1, 2 * EPOCHS + 1))
    for epoch in range(EPOCHS):
        seen = batches[2 * epoch + 1] + batches[2 * epoch + 2]
        assert sorted(seen) == list(range(64))
    assert list((job.model_dir.parent / "logs").glob("events*"))
    assert not (job.model_dir / "logs").exists()


@pytest.mark.parametrize(
    "variables", [cluster_spec, pytest.param(tf_config, marks=pytest.mark.long)]
)
def test_one_process(job, variables):
    alone = job(variables, chief=1)
    alone.start("chief")
    alone.end()
    require_whole(alone)
    assert alone.messages("chief")[-1] == f"finished: all {2 * EPOCHS} steps are done"


@pytest.mark.long
@pytest.mark.parametrize("variables", [cluster_spec, tf_config])
def test_two_processes_beside_an_evaluator_and_a_reduction_server(job, variables):
    several = job(variables, chief=1, worker=1, ps=1, evaluator=1)
    for role in ("chief", "worker", "evaluator"):
        several.start(role)
    several.end()
    require_whole(several)
    rows = json.loads((several.model_dir / "evaluator.json").read_text())
    last = history_of(several.model_dir)["epochs"][-1]
    assert rows[-1]["step"] == last["step"] and rows[-1]["epoch"] == EPOCHS
    for name in ("validation_top_1", "validation_top_1_raw"):
        assert rows[-1][name] == last[name]  # counted by others, on other devices
    assert rows[-1]["validation_loss"] == pytest.approx(last["validation_loss"], rel=1e-5)
    assert list((several.model_dir.parent / "logs/evaluator").glob("events*"))


def child_of(process: subprocess.Popen) -> int:
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + SECONDS
    while not children.read_text().split():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(children.read_text().split()[0])


def wait_for_checkpoint(job: Job, step: int) -> None:
    deadline = time.monotonic() + SECONDS
    while not (job.model_dir / "checkpoints" / f"ckpt-{step}.index").exists():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in job.processes.values())
        time.sleep(0.01)


@pytest.mark.long
def test_four_processes_of_which_one_comes_late_and_one_is_started_again(job):
    four = job(tf_config, chief=1, worker=3)
    workers = {index: four.start("worker", index) for index in (0, 1)}
    chief = four.start("chief")
    # The others wait for as long as it takes; what they wait for is no step of theirs.
    time.sleep(5)
    assert not (four.model_dir / "history.json").exists()
    workers[2] = four.start("worker", 2)
    wait_for_checkpoint(four, 2)
    os.kill(child_of(workers[1]), signal.SIGKILL)  # the process that trains, not its supervisor
    four.end()
    require_whole(four)
    assert chief.returncode == 0
    told = four.messages("worker", 1)
    assert any("was ended by SIGKILL: starting it again" in message for message in told)
    assert any(message.startswith("resumed at step") for message in told)
    assert any("asks to be started again" in message for message in four.messages("chief"))


@pytest.mark.long
def test_a_machine_that_is_taken_away_is_replaced(job):
    """What a scheduler does on preemption: SIGTERM, and the same task on another machine."""
    two = job(cluster_spec, chief=1, worker=1)
    two.start("chief")
    worker = two.start("worker")
    wait_for_checkpoint(two, 2)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(SECONDS) == 75
    two.start("worker")
    two.end()
    require_whole(two)
