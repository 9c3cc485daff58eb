"""The training loop: step, measure, guard, save, evaluate."""

from __future__ import annotations

import logging
import os
import time

import tensorflow as tf

from common import files
from common.errors import UserError, first_line
from common.progress import Progress
from training.blow_up import find_cause
from training.checkpoints import DIRECTORY, CheckpointStore, write_weights
from training.config import Recipe
from training.distillation import Teacher
from training.history import History, best_epoch, evaluations_since_best
from training.input_pipeline import TrainingInput, training_batches
from training.models import ModelRecord
from training.passed_over import PassedOver
from training.run_log import RunLog
from training.schedules import make_schedule
from training.shard_errors import is_over_data
from training.shards import Shards
from training.state import TrainState
from training.step import make_run_steps
from training.stopping import Stopped, StopRequest
from training.strategies import Devices
from training.tuning import report_metric
from training.validation import Score, Validator, as_metrics

BEST = "best"  # the weights of the best evaluation, a checkpoint of their own

# A call must end soon after it is asked to, so that what is done can be saved in time.
_SECONDS_A_CALL = 2.0
_MOST_ROLLBACKS = 10

# What other workers' end looks like from here.
_PEER_IS_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Trainer:
    """One run, from wherever it stands to its end.

    Args:
        state: what is trained; its weights are those to start from if nothing was saved yet.
        record: architecture, labels and input range.
        recipe: how it is trained, how often it saves.
        training_input: how batches are made.
        train: the shards to train on.
        validator: evaluates, or None.
        devices: on what it is computed.
        stop: whether the run was asked to end.
        start_from: what the weights at the start are, for people.
        teacher: whose outputs are learnt as well, or None.
    """

    def __init__(
        self,
        state: TrainState,
        record: ModelRecord,
        recipe: Recipe,
        training_input: TrainingInput,
        train: Shards,
        validator: Validator | None,
        devices: Devices,
        stop: StopRequest,
        start_from: str,
        teacher: Teacher | None = None,
    ):
        self._state, self._record, self._recipe, self._run = state, record, recipe, recipe.run
        self._input, self._train, self._validator = training_input, train, validator
        self._devices, self._stop, self._start_from = devices, stop, start_from
        self._batch = recipe.optimization.batch_size
        self._replica_batch = self._batch // devices.num_replicas
        self._schedule = make_schedule(recipe.optimization, train.num_examples)
        self._history = History(self._run.model_dir, devices.is_chief)
        self._log = RunLog(self._run, devices)
        self._passed_over = PassedOver(self._run.model_dir, train, recipe.data.skip_corrupt_records)
        self._store = CheckpointStore(
            files.join(self._run.model_dir, DIRECTORY),
            state.checkpoint_items(),
            self._run.keep_checkpoints,
            devices.is_chief,
        )
        self._run_steps = make_run_steps(
            state,
            record,
            recipe.optimization,
            recipe.augmentation,
            self._schedule,
            devices,
            teacher,
        )
        weights = [variable.value for variable in state.trainable.values()]
        # A sum is finite if all its terms are, which an update may break without a trace in the
        # loss: that is from before it.
        self._weights_are_finite = tf.function(
            lambda: tf.reduce_all([tf.math.is_finite(tf.reduce_sum(tf.abs(w))) for w in weights])
        )
        self._saved_step = -1
        self._rollbacks = 0
        self._seconds_a_step: float | None = None  # not known before the first call
        self._batches = None

    def restore(self, judged_alike: bool = True) -> bool:
        """Goes to the newest checkpoint; False if there is none.

        Args:
            judged_alike: whether evaluations will find what those before found, or are by another
                metric, or of other photos.

        Raises:
            UserError: none can be restored, or the workers do not agree.
        """
        restored = self._store.restore_newest()
        if self._state.seed.numpy() != self._run.seed and not self._run.allow_changes:
            raise UserError(
                f"the checkpoints in {self._run.model_dir} are of a run with"
                f" --seed={self._state.seed.numpy()}, not {self._run.seed}"
            )
        self._state.seed.assign(self._run.seed)
        self._history.go_back_to(self._epoch)
        if not judged_alike:
            self._history.compare_anew()
        self._saved_step = self._step if restored else -1
        # All must take the same decisions from here on, or they would wait for each other.
        if not self._devices.agree(self._step, len(self._history.epochs)):
            raise UserError(
                f"the workers do not agree (this one is at step {self._step}, after"
                f" {len(self._history.epochs)} epochs): --model_dir={self._run.model_dir} must be a"
                " directory that all share"
            )
        return restored is not None

    def run(self, restored: bool) -> None:
        """Trains until the last epoch is done.

        Args:
            restored: what `restore` said.

        Raises:
            Stopped: the run was asked to end, or lost a worker; all is saved that can be.
            UserError: the data is damaged, or training broke.
        """
        try:
            self._run_to_the_end(restored)
        except _PEER_IS_GONE as error:
            if self._devices.num_workers == 1:
                raise
            raise Stopped(
                f"another worker is gone ({type(error).__name__}): start all workers again, and the"
                " run goes on from its last checkpoint"
            ) from None

    def _run_to_the_end(self, restored: bool) -> None:
        if restored:
            self._log_place()
        else:
            self._begin()
        if self._is_finished():
            self._history.finish(self._recipe.optimization.epochs)
            logging.info("finished: all %d steps are done", self._step)
            return
        total = self._recipe.optimization.epochs * self._train.num_examples
        with (
            self._log.writing(),
            Progress(max(total, self._position), "img", "training", self._position) as progress,
        ):
            while not self._is_finished():
                self._train_epoch(progress)
                self._finish_epoch()
        self._history.finish(self._recipe.optimization.epochs)
        logging.info("finished: all %d steps are done", self._step)

    @property
    def _step(self) -> int:
        return int(self._state.step.numpy())

    @property
    def _position(self) -> int:
        return int(self._state.position.numpy())

    @property
    def _epoch(self) -> int:
        """The epoch, from 0, that is under way: a batch counts towards that in which it starts."""
        start = self._position - int(self._state.sums["seen"].numpy())
        return start // self._train.num_examples

    @property
    def _epoch_end(self) -> int:
        """The position at which that epoch is complete; its last batch may reach beyond."""
        return (self._epoch + 1) * self._train.num_examples

    def _is_finished(self) -> bool:
        options = self._recipe.optimization
        at_end = self._position >= options.epochs * self._train.num_examples
        return self._state.sums["seen"].numpy() == 0 and (at_end or self._has_stopped_improving())

    def _has_stopped_improving(self) -> bool:
        patience = self._run.early_stop_epochs
        since = evaluations_since_best(self._history.compared, self._run.early_stop_metric)
        return 0 < patience <= since

    def _log_place(self) -> None:
        epoch, example = divmod(self._position, self._train.num_examples)
        logging.info(
            "resumed at step %d, epoch %d, example %d of %d",
            self._step,
            epoch + 1,
            example,
            self._train.num_examples,
        )

    def _begin(self) -> None:
        logging.info("starting from %s", self._start_from)
        self._history.start = {"from": self._start_from}
        if self._validator:
            score = self._evaluate("averages")
            self._history.start["validation_top_1"] = score.top_1
            logging.info("at the start: validation top-1 %.4f", score.top_1)
        self._history.write()
        self._save()

    def _train_epoch(self, progress: Progress) -> None:
        """Trains until the epoch's last example was seen."""
        self._seconds = self._waited = 0.0
        self._images = 0
        epochs = self._recipe.optimization.epochs
        while self._position < self._epoch_end:
            position, first_step = self._position, self._step
            count = self._steps_to_next_stop()
            start = time.monotonic()
            waited = self._call(count)
            seconds = time.monotonic() - start
            self._stop.something_to_save()
            if self._mend(first_step, count) or self._step == first_step:
                progress.update(self._position - position)
                continue
            # What every worker must know of the others, so that all do the same next.
            seconds, asked = self._devices.total([seconds, float(self._stop.requested())])
            seconds /= self._devices.num_workers
            compiled, self._seconds_a_step = self._seconds_a_step is None, seconds / count
            self._tell_of_call(first_step, seconds, waited)
            if not compiled:  # a call that compiles tells nothing of the speed
                self._seconds += time.monotonic() - start
                self._waited += waited
                self._images += self._position - position
            share = self._waited / self._seconds if self._seconds else 0.0
            progress.update(
                self._position - position,
                f"epoch {self._epoch + 1}/{epochs} loss {self._mean_loss():.3f}"
                f" waits for input {share:.0%}",
            )
            if asked:
                self._stop_here()
            if self._is_due() and self._position < self._epoch_end:
                self._save()

    def _call(self, count: int) -> float:
        """Runs `count` steps; seconds that they waited for input."""
        if self._batches is None:
            self._batches = iter(self._make_batches())
        try:
            waited = self._run_steps(self._batches, tf.constant(count))
            return float(waited.numpy())
        except tf.errors.ResourceExhaustedError as error:  # to begin again would be no better
            raise UserError(
                f"there is not memory enough for a step ({first_line(error)}): lower --batch_size"
                f" (now {self._batch}), or raise --gradient_accumulation"
                f" (now {self._recipe.optimization.gradient_accumulation})"
            ) from None
        except tf.errors.OpError as error:
            if isinstance(error, _PEER_IS_GONE):
                raise
            if self._devices.num_workers > 1 and not is_over_data(error):
                raise Stopped(
                    f"a step failed ({first_line(error)}): start all workers again"
                ) from (error)
            self._passed_over.add_culprit(error, self._input, self._position)
            if self._devices.num_workers > 1:
                raise Stopped("the damaged record is noted: start all workers again") from None
            self._batches = None
            return 0.0

    def _make_batches(self):
        devices = self._devices

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            del context  # `devices` knows the same
            return training_batches(
                self._train,
                self._passed_over.without(self._input),
                self._position,
                devices.worker,
                devices.num_workers,
                self._replica_batch,
            )

        return devices.strategy.distribute_datasets_from_function(make)

    def _is_due(self) -> bool:
        every = self._run.checkpoint_every_steps
        return self._step // every > self._saved_step // every

    def _steps_to_next_stop(self) -> int:
        """Steps until the epoch ends, a checkpoint is due, or someone may want to end the run."""
        every = self._run.checkpoint_every_steps
        to_epoch_end = -(-(self._epoch_end - self._position) // self._batch)
        in_time = 1 if self._seconds_a_step is None else _SECONDS_A_CALL / self._seconds_a_step
        return min(
            self._run.steps_per_call, every - self._step % every, to_epoch_end, max(1, int(in_time))
        )

    def _mend(self, first_step: int, count: int) -> bool:
        """Looks whether training broke in the last call; True if it went back to a checkpoint.

        Raises:
            UserError: it broke, and is not to go back.
        """
        state = self._state
        broken = int(state.broken_step.numpy())
        if broken < 0 and self._weights_are_finite().numpy():
            return False
        last = first_step + count - 1 if broken < 0 else broken
        loss = float(state.losses.numpy()[last - first_step])
        options = self._passed_over.without(self._input)
        batches = training_batches(self._train, options, self._position)
        parts = self._devices.num_replicas * self._recipe.optimization.gradient_accumulation
        cause = find_cause(state, next(iter(batches)), self._record, self._recipe, parts)
        told = f"training broke at step {last + 1}, where the loss is {loss:.4g}: {cause}"
        if self._run.on_nan == "stop" or self._rollbacks == _MOST_ROLLBACKS:
            cure = f"Lower --lr (now {self._recipe.optimization.lr:g}) or lengthen --warmup_epochs"
            if self._run.on_nan == "stop":
                cure += ", or pass --on_nan=rollback"
            raise UserError(
                f"{told}. {cure}; the last checkpoint in {self._run.model_dir} is from before"
            )
        scale = float(state.rate_scale.numpy())
        self.restore()
        scale = min(scale, float(state.rate_scale.numpy())) / 2
        state.rate_scale.assign(scale)
        state.broken_step.assign(-1)
        self._batches = None
        self._rollbacks += 1
        logging.warning("%s. Back to step %d, at %g of the learning rate", told, self._step, scale)
        return True

    def _finish_epoch(self) -> None:
        """Evaluates, writes the epoch's row to history and TensorBoard, and saves."""
        state, epoch = self._state, self._epoch
        row = {
            "epoch": epoch + 1,
            "step": self._step,
            "learning_rate": float(self._schedule(state.position) * state.rate_scale),
            "loss": self._mean_loss(),
            "accuracy": float(state.sums["correct"].numpy() / state.sums["seen"].numpy()),
            "images_per_second": self._images / self._seconds if self._seconds else None,
            "waits_for_input": self._waited / self._seconds if self._seconds else None,
        }
        last = epoch + 1 >= self._recipe.optimization.epochs
        last |= self._position >= self._recipe.optimization.epochs * self._train.num_examples
        if self._validator and (last or (epoch + 1) % self._run.eval_every_epochs == 0):
            self._save_before_compiling()
            averaged = raw = self._evaluate("averages")
            self._stop.something_to_save()
            if state.averages:
                raw = self._evaluate("raw")
            row |= as_metrics(averaged, raw)
        for counter in state.sums.values():
            counter.assign(tf.zeros_like(counter))
        # In this order: a row that no checkpoint follows is left out when the run is resumed.
        self._history.add_epoch(row)
        rows = self._history.compared
        is_new_best = best_epoch(rows, self._run.early_stop_metric) == len(rows) - 1
        if is_new_best:
            self._save_best()
        self._save()
        self._log.epoch(self._step, row, self._state)
        self._report_to_tuner(row)
        if self._has_stopped_improving() and not last:
            logging.info(
                "ends early: %s has not improved for %d evaluations",
                self._run.early_stop_metric,
                self._run.early_stop_epochs,
            )

    def _tell_of_call(self, first_step: int, seconds: float, waited: float) -> None:
        state, count = self._state, self._step - first_step
        self._log.call(
            first_step,
            state.losses.numpy()[:count],
            {
                "learning_rate": self._schedule(state.position) * state.rate_scale,
                "images_per_second": count * self._batch / seconds,
                "waits_for_input": waited / seconds,
            },
        )
        if self._run.log_examples:
            self._log.examples(first_step, self._step, state.examples)

    def _report_to_tuner(self, row: dict) -> None:
        metric = self._run.early_stop_metric
        if self._devices.is_chief and metric in row:
            report_metric(metric, row[metric], row["epoch"], os.environ)

    def _evaluate(self, which: str) -> Score:
        score = self._validator.score(self._state, which, self._stop.requested)
        if score is None:
            self._stop_here()
        return score

    def _stop_here(self) -> None:
        """Saves what is not saved yet, and ends the run.

        Raises:
            Stopped: always.
        """
        if self._step != self._saved_step:
            self._save()
        self._devices.total([0.0])  # nobody leaves before the chief has saved
        raise Stopped(
            f"stopped by {self._stop.signal_name or 'another worker'} at step {self._step}, all is"
            " saved: the same command goes on from there"
        )

    def _save_before_compiling(self) -> None:
        """Has a signal end the process at once while the first evaluation is compiled.

        It may take longer than a scheduler waits, and it looks for no signal.
        """
        if not self._validator.has_begun:
            if self._step != self._saved_step:
                self._save()
            self._stop.nothing_to_save()

    def _save(self) -> None:
        self._store.save(self._step)
        self._saved_step = self._step

    def _save_best(self) -> None:
        if self._devices.is_chief:
            directory = files.join(self._run.model_dir, BEST)
            averages = self._state.weights("averages") if self._state.averages else None
            write_weights(directory, self._state.weights("raw"), averages, self._step)
            self._record.write(directory)

    def _mean_loss(self) -> float:
        sums = self._state.sums
        return float(sums["loss"].numpy() / max(1, sums["seen"].numpy()))
