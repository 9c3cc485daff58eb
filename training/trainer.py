"""The training loop: step, measure, guard, save, evaluate."""

from __future__ import annotations

import itertools
import logging
import math
import os
import time

import numpy as np
import tensorflow as tf

from common.errors import UserError
from common.progress import Progress
from training.checkpoints import DIRECTORY, CheckpointStore
from training.config import OptimizationFlags, RunFlags
from training.evaluation import Evaluation, evaluate
from training.history import History
from training.input_pipeline import TrainingInput, evaluation_batches, training_batches
from training.models import ModelRecord, build_model
from training.models.mobilenet import weights_of
from training.schedules import make_schedule
from training.shards import Shards
from training.state import TrainState
from training.step import make_run_steps

LOGS = "logs"


class Trainer:
    """One run, from wherever it stands to its end.

    Args:
        state: what is trained; its weights are those to start from if nothing was saved yet.
        record: architecture, labels and input range.
        optimization: how it is trained.
        run: where the run lives, and how often it saves.
        training_input: how batches are made.
        train: the shards to train on.
        validation: the shards to evaluate on, or None.
        start_from: what the weights at the start are, for people.
    """

    def __init__(
        self,
        state: TrainState,
        record: ModelRecord,
        optimization: OptimizationFlags,
        run: RunFlags,
        training_input: TrainingInput,
        train: Shards,
        validation: Shards | None,
        start_from: str,
    ):
        self._state, self._record, self._optimization = state, record, optimization
        self._run, self._input = run, training_input
        self._train, self._validation, self._start_from = train, validation, start_from
        self._strategy = tf.distribute.get_strategy()
        self._schedule = make_schedule(optimization, train.num_examples)
        self._history = History(run.model_dir)
        self._store = CheckpointStore(
            os.path.join(run.model_dir, DIRECTORY), state.checkpoint_items(), run.keep_checkpoints
        )
        self._num_steps = self._last_step_of(optimization.epochs - 1)
        # The weights in training stay where they are; a second model is evaluated.
        self._evaluated = build_model(record.config) if validation else None
        self._predict = tf.function(
            lambda images: self._evaluated(images, training=False), reduce_retracing=True
        )

    def run(self) -> None:
        """Trains until the last epoch is done, from the newest checkpoint on if there is one."""
        self._resume_or_begin()
        state, batch_size = self._state, self._optimization.batch_size
        if self._step >= self._num_steps:
            logging.info("finished: all %d steps are done", self._num_steps)
            return
        batches = iter(training_batches(self._train, self._input, int(state.position.numpy())))
        run_steps = make_run_steps(
            state, self._record, self._optimization, self._input, self._schedule, self._strategy
        )
        summaries = tf.summary.create_file_writer(os.path.join(self._run.model_dir, LOGS))
        with (
            summaries.as_default(),
            Progress(
                self._num_steps * batch_size, "img", "training", self._step * batch_size
            ) as progress,
        ):
            images, seconds = 0, 0.0
            while self._step < self._num_steps:
                count = self._steps_to_next_stop()
                start = time.monotonic()
                run_steps(batches, tf.constant(count))
                loss = self._mean_loss()
                seconds += time.monotonic() - start
                images += count * batch_size
                self._stop_unless_finite(loss, count)
                epoch = self._epoch_of(self._step)
                note = f"epoch {epoch + 1}/{self._optimization.epochs} loss {loss:.3f}"
                progress.update(count * batch_size, note)
                if self._step == self._last_step_of(epoch):
                    self._finish_epoch(epoch, images / seconds)
                    images, seconds = 0, 0.0
                elif self._step % self._run.checkpoint_every_steps == 0:
                    self._store.save(self._step)

    def evaluate(self, which: str) -> Evaluation:
        """Evaluates the 'averages' or the 'raw' weights on the validation shards."""
        values = self._state.weights(which)
        for name, variable in weights_of(self._evaluated).items():
            variable.assign(values[name])
        record, manifest = self._record, self._validation.manifest
        return evaluate(
            self._predict,
            evaluation_batches(
                self._validation,
                self._optimization.batch_size,
                record.config.resolution,
                record.input_range,
            ),
            manifest,
            record,
        )

    @property
    def _step(self) -> int:
        return int(self._state.step.numpy())

    def _resume_or_begin(self) -> None:
        restored = self._store.restore_newest()
        self._history.go_back_to(self._step)
        if restored:
            epoch, example = divmod(int(self._state.position.numpy()), self._train.num_examples)
            logging.info(
                "resumed at step %d, epoch %d, example %d of %d",
                self._step,
                epoch + 1,
                example,
                self._train.num_examples,
            )
            return
        logging.info("starting from %s", self._start_from)
        self._history.start = {"from": self._start_from}
        if self._validation:
            result = self.evaluate("averages")
            self._history.start["validation_top_1"] = result.top_1
            logging.info("at the start: validation top-1 %.4f", result.top_1)
        self._history.write()
        self._store.save(self._step)

    def _last_step_of(self, epoch: int) -> int:
        """The step that completes epoch `epoch`, from 0; its batch may reach into the next."""
        return -(-(epoch + 1) * self._train.num_examples // self._optimization.batch_size)

    def _epoch_of(self, step: int) -> int:
        """The epoch, from 0, that step number `step` (from 1) counts towards."""
        guess = max(0, (step - 1) * self._optimization.batch_size // self._train.num_examples - 1)
        return next(e for e in itertools.count(guess) if step <= self._last_step_of(e))

    def _steps_to_next_stop(self) -> int:
        """Steps until the epoch ends, a checkpoint is due or people want to see progress."""
        run, step = self._run, self._step
        to_checkpoint = run.checkpoint_every_steps - step % run.checkpoint_every_steps
        to_epoch_end = self._last_step_of(self._epoch_of(step + 1)) - step
        return min(run.steps_per_call, to_checkpoint, to_epoch_end)

    def _mean_loss(self) -> float:
        sums = self._state.sums
        return float(sums["loss"].numpy() / max(1, sums["seen"].numpy()))

    def _stop_unless_finite(self, loss: float, count: int) -> None:
        broken = None if math.isfinite(loss) else "the loss"
        # An update may break weights without a trace in the loss, which is from before it.
        for name, variable in weights_of(self._state.model).items():
            broken = broken or (None if np.all(np.isfinite(variable.numpy())) else name)
        if broken:
            raise UserError(
                f"{broken} became infinite or NaN between steps {self._step - count} and"
                f" {self._step}: lower --lr (now {self._optimization.lr}) or lengthen"
                f" --warmup_epochs; the last checkpoint in {self._run.model_dir} is from before"
            )

    def _finish_epoch(self, epoch: int, images_per_second: float) -> None:
        """Evaluates, saves, and writes the epoch's row to history and TensorBoard."""
        state = self._state
        row = {
            "epoch": epoch + 1,
            "step": self._step,
            "learning_rate": float(self._schedule(state.position).numpy()),
            "loss": self._mean_loss(),
            "accuracy": float(state.sums["correct"].numpy() / state.sums["seen"].numpy()),
            "images_per_second": images_per_second,
        }
        last = self._step == self._num_steps
        if self._validation and (last or (epoch + 1) % self._run.eval_every_epochs == 0):
            averaged = raw = self.evaluate("averages")
            if state.averages:
                raw = self.evaluate("raw")
            row |= {
                "validation_top_1": averaged.top_1,
                "validation_top_5": averaged.top_5,
                "validation_loss": averaged.loss,
                "validation_top_1_raw": raw.top_1,
            }
        for counter in state.sums.values():
            counter.assign(tf.zeros_like(counter))
        # In this order: a row that no checkpoint follows is left out when the run is resumed.
        self._history.add_epoch(row)
        self._store.save(self._step)
        for name, value in row.items():
            tf.summary.scalar(name, value, step=self._step)
        tf.summary.flush()
        logging.info(
            "  ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in row.items()
            )
        )
