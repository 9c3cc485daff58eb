"""A run that is killed thirty times ends with the bits of one that was not."""

import itertools
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from common.files import read_json
from tests.training.conftest import build, draw_photos
from tests.training.distribution import ROOT, train_here, words_of
from tests.training.runs import flags_of, history_of, variables_of
from training.checkpoints import list_checkpoints
from training.stopping import RESUME_ME

pytestmark = pytest.mark.long

NUM_KILLS, NUM_EPOCHS = 30, 100


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("kills")
    return build(draw_photos(root / "photos"), root / "data", num_shards=3)


def flags(data, model_dir):
    return flags_of(
        data,
        model_dir,
        optimization={"epochs": NUM_EPOCHS, "lr": 0.01},
        run={"eval_every_epochs": 3, "checkpoint_every_steps": 2},
    )


class Life:
    """One process of the run."""

    def __init__(self, groups):
        self.model_dir = pathlib.Path(groups[-1].model_dir)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "training.train", *words_of(groups)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_it_trains(self) -> None:
        for line in self.process.stdout:
            if line.startswith(("resumed at", "starting from")):
                return

    def wait_for(self, happened) -> None:
        while self.process.poll() is None and not happened():
            time.sleep(0.0005)

    def end_by(self, number: int) -> str:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        # Before it listens, SIGTERM ends it as any process; a run that is done may end before.
        allowed = {0, -number} | ({RESUME_ME} if number == signal.SIGTERM else set())
        assert self.process.returncode in allowed, output
        return output


def epochs_of(model_dir: pathlib.Path) -> int:
    path = model_dir / "history.json"
    return len(read_json(str(path))["epochs"]) if path.exists() else 0


def kill(life: Life, moment: str, draw: random.Random) -> None:
    number = draw.choice([signal.SIGKILL, signal.SIGTERM])
    if moment == "starts":
        time.sleep(draw.uniform(0, 8))
    else:
        life.wait_until_it_trains()
    if moment == "trains":
        time.sleep(draw.uniform(0, 4))
    elif moment == "saves":
        number = signal.SIGKILL
        checkpoints = life.model_dir / "checkpoints"
        life.wait_for(lambda: any(checkpoints.glob("*_temp")))
    elif moment == "ends an epoch":
        before = epochs_of(life.model_dir)
        life.wait_for(lambda: epochs_of(life.model_dir) > before)
    life.end_by(number)


def test_thirty_kills_leave_no_trace_in_the_weights(data, tmp_path):
    train_here(flags(data, tmp_path / "undisturbed"))
    groups = flags(data, tmp_path / "killed")
    draw = random.Random(5)
    moments = itertools.cycle(["trains", "saves", "ends an epoch", "trains", "starts"])
    for moment in itertools.islice(moments, NUM_KILLS):
        kill(Life(groups), moment, draw)
    assert 0 < epochs_of(tmp_path / "killed") < NUM_EPOCHS, "the kills came too late or too early"
    train_here(groups)
    ends = [
        list_checkpoints(str(tmp_path / run / "checkpoints"))[-1]
        for run in ("undisturbed", "killed")
    ]
    ours, theirs = map(variables_of, ends)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    histories = [history_of(tmp_path / run)["epochs"] for run in ("undisturbed", "killed")]
    for row in itertools.chain(*histories):
        del row["images_per_second"], row["waits_for_input"]
    assert histories[0] == histories[1]
