"""Evaluates the checkpoints of a run while others train it.

What an evaluator does in a cluster that has one (`workerpool3` of Vertex AI, `evaluator` of
TF_CONFIG): it looks for a new checkpoint, counts the evaluation split with its averages and with
its raw weights, and writes `evaluator.json`, until the run is finished. It takes part in no step,
so that the workers need not wait for it: with a large --eval_every_epochs they only train. A signal
ends it at once, since there is nothing to save.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from common import files
from training.checkpoints import DIRECTORY, CheckpointStore, list_checkpoints
from training.config import Recipe
from training.history import finished_epochs
from training.run_log import RunLog
from training.state import TrainState
from training.strategies import Devices
from training.validation import Validator, as_metrics

FILE_NAME = "evaluator.json"
LARGEST_BATCH = 256  # for each replica: this process is alone, the global batch is for all

_SECONDS_BETWEEN_LOOKS = 5.0


def evaluate_checkpoints(
    state: TrainState,
    validator: Validator,
    recipe: Recipe,
    num_examples: int,
    devices: Devices,
) -> None:
    """Evaluates each new checkpoint until the run is finished and its last one is done.

    A checkpoint that is followed by another one before its turn comes is passed over.

    Args:
        state: takes the weights of each checkpoint.
        validator: counts.
        recipe: of the run.
        num_examples: of an epoch.
        devices: on what.
    """
    model_dir = recipe.run.model_dir
    path = files.join(model_dir, FILE_NAME)
    rows: list[dict[str, Any]] = files.read_json(path) if files.exists(path) else []
    directory = files.join(model_dir, DIRECTORY)
    store = CheckpointStore(directory, state.checkpoint_items(), writes=False)
    logging.info("evaluating the checkpoints in %s as they come", model_dir)
    log = RunLog(recipe.run, devices, "evaluator")
    seen: list[str] = []
    with log.writing():
        while True:
            # In this order: once the run is finished, the newest checkpoint is its last.
            is_over = finished_epochs(model_dir) == recipe.optimization.epochs
            there = list_checkpoints(directory)
            is_new = there[-1:] != seen and store.restore_newest() is not None
            seen = there[-1:]
            step = int(state.step.numpy())
            if is_new and step not in {row["step"] for row in rows}:
                row = {"step": step, "epoch": int(state.position.numpy()) / num_examples}
                row |= _scores(state, validator)
                rows.append(row)
                files.write_json(path, rows)
                log.epoch(step, row)
            elif is_over:
                logging.info("the run is finished: %d checkpoints were evaluated", len(rows))
                return
            else:
                time.sleep(_SECONDS_BETWEEN_LOOKS)


def _scores(state: TrainState, validator: Validator) -> dict[str, float]:
    averaged = validator.score(state, "averages")
    raw = validator.score(state, "raw") if state.averages else averaged
    return as_metrics(averaged, raw)
