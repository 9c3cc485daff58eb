"""Several devices compute what one does: the same batches, and the same losses."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.training.conftest import build, draw_photos
from tests.training.distribution import (
    ROOT,
    batches_of,
    losses_of,
    train_here,
    train_on_workers,
    words_of,
)
from tests.training.runs import flags_of, history_of
from training.stopping import RESUME_ME

pytestmark = pytest.mark.long

NUM_EXAMPLES, BATCH, NUM_STEPS = 320, 64, 20
EPOCHS = NUM_STEPS * BATCH // NUM_EXAMPLES


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("distribution")
    return build(draw_photos(root / "photos", NUM_EXAMPLES // 2), root / "data", num_shards=4)


def flags(data, model_dir, model="mobilenet_v1", optimization=None, **run):
    return flags_of(
        data,
        model_dir,
        model={"model_name": model, "truncated_normal_stddev": 0.09},
        data={"eval_split": ""},
        optimization={
            "batch_size": BATCH,
            "epochs": EPOCHS,
            "label_smoothing": 0.1,
            **(optimization or {}),
        },
        distribution={"sync_batch_norm": True},
        run={"log_examples": True, "checkpoint_every_steps": 5, **run},
    )


def warm_start(data, directory, model) -> str:
    """A model that has learnt for a while.

    In a fresh one batch norm multiplies rounding errors from layer to layer, up to where the signs
    of activations change: two runs that differ in the last bit part after a few steps.
    """
    train_here(flags(data, directory, model, {"lr": 0.05, "epochs": 6 * EPOCHS}))
    return str(directory)


def with_devices(groups, number: int):
    distribution = dataclasses.replace(groups[4], strategy="mirrored", num_virtual_devices=number)
    return (*groups[:4], distribution, groups[5])


@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"])
def test_losses_and_batches_are_those_of_one_device(data, tmp_path, model):
    warm = warm_start(data, tmp_path / "warm", model)

    def run_flags(name):
        start = {"init_checkpoint": warm, "init_weights": "raw"}
        return flags(data, tmp_path / name, model, {"lr": 2e-4}, **start)

    train_here(run_flags("one"))
    losses, batches = losses_of(tmp_path / "one"), batches_of(tmp_path / "one")
    assert len(losses) == NUM_STEPS == len(batches)
    assert losses[0] != losses[-1]
    for number in (2, 4):
        mirrored, workers = f"mirrored-{number}", f"workers-{number}"
        train_here(with_devices(run_flags(mirrored), number))
        train_on_workers(run_flags(workers), number)
        for name in (mirrored, workers):
            np.testing.assert_allclose(losses_of(tmp_path / name), losses, rtol=1e-3)
            assert batches_of(tmp_path / name) == batches


def test_a_run_in_three_pieces_on_1_2_and_4_workers_sees_what_one_run_sees(data, tmp_path):
    train_here(flags(data, tmp_path / "whole"))
    whole = batches_of(tmp_path / "whole")
    model_dir = tmp_path / "pieces"
    for number, steps in ((1, 6), (2, 13)):
        stop_after(
            flags(data, model_dir, checkpoint_every_steps=1, steps_per_call=1), number, steps
        )
    train_on_workers(flags(data, model_dir), 4)
    pieces = batches_of(model_dir)
    workers = sorted(path.name for path in (model_dir / "examples").iterdir())
    assert workers == [f"worker-{n:05}.jsonl" for n in range(4)]
    assert pieces == whole
    seen = [example for step in sorted(whole) for example in whole[step]]
    for start in range(0, NUM_STEPS * BATCH, NUM_EXAMPLES):
        assert sorted(seen[start : start + NUM_EXAMPLES]) == list(range(NUM_EXAMPLES))


def stop_after(groups, num_workers: int, step: int) -> None:
    """Trains on some workers, and asks them to end once a checkpoint of `step` is there."""
    model_dir = pathlib.Path(groups[-1].model_dir)
    module = ["training.launch", f"--num_workers={num_workers}", "--"]
    command = module if num_workers > 1 else ["training.train"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *words_of(groups)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_step(process, model_dir, step)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == RESUME_ME, output


def wait_for_step(process: subprocess.Popen, model_dir: pathlib.Path, step: int) -> None:
    deadline = time.monotonic() + 300
    while not any((model_dir / "checkpoints").glob(f"ckpt-{step}.index")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_worker_is_started_again_and_the_job_completes(data, tmp_path):
    groups = flags(data, tmp_path, steps_per_call=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "training.launch", "--num_workers=2", "--", *words_of(groups)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_step(process, tmp_path, 5)
    victim = workers_of(process.pid)[1]
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resumed at step" in output
    assert history_of(tmp_path)["epochs"][-1]["step"] == NUM_STEPS
    assert sorted(batches_of(tmp_path)) == list(range(1, NUM_STEPS + 1))


def workers_of(launcher: int) -> list[int]:
    """Process ids of the workers, in the order of their start."""
    children = pathlib.Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return sorted(int(child) for child in children)
