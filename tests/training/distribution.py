"""Short runs on one device and on several, and what they did step by step."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import tensorflow as tf

from common.command import to_flags

ROOT = pathlib.Path(__file__).parents[2]


def train_here(flags, environment=None) -> subprocess.CompletedProcess:
    """A run in a process of its own: devices are set up once a process."""
    return _run("training.train", words_of(flags), environment)


def train_on_workers(flags, num_workers: int, *launch_flags: str) -> subprocess.CompletedProcess:
    """A run in several processes."""
    words = [f"--num_workers={num_workers}", *launch_flags, "--", *words_of(flags)]
    return _run("training.launch", words)


def words_of(flags) -> list[str]:
    return [word for config in flags for word in to_flags(config)]


def _run(module: str, words: list[str], environment=None) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        check=False,
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done


def losses_of(model_dir) -> list[float]:
    """The loss of each step."""
    losses = {}
    for path in sorted(pathlib.Path(model_dir, "logs").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "steps/loss":
                    losses[event.step] = float(tf.make_ndarray(value.tensor))
    return [losses[step] for step in sorted(losses)]


def batches_of(model_dir) -> dict[int, list[int]]:
    """The example numbers of each global batch, sorted, by step; what came last counts."""
    steps: dict[int, dict[str, list[int]]] = {}
    for path in sorted(pathlib.Path(model_dir, "examples").glob("worker-*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            steps.setdefault(row["step"], {})[path.name] = row["examples"]
    return {step: sorted(itertools.chain(*parts.values())) for step, parts in steps.items()}
