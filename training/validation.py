"""Evaluation in the course of training, on all replicas: every example once.

`training.evaluation` looks closer at a finished model (confusions, mistakes); here only what the
history tells is counted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import tensorflow as tf

from common.errors import UserError
from common.progress import Progress
from training.evaluation import label_ranks
from training.input_pipeline import padded_evaluation_batches
from training.models import ModelRecord, build_model
from training.models.mobilenet import weights_of
from training.shards import Shards
from training.state import TrainState
from training.strategies import Devices

_SECONDS_A_CALL = 2.0


@dataclasses.dataclass(frozen=True)
class Score:
    """Counts over a split: top-1, top-5 (fractions) and mean cross-entropy in nats."""

    top_1: float
    top_5: float
    loss: float


def as_metrics(averaged: Score, raw: Score) -> dict[str, float]:
    """What a history tells of both sets of weights, by the names of its metrics."""
    return {
        "validation_top_1": averaged.top_1,
        "validation_top_5": averaged.top_5,
        "validation_loss": averaged.loss,
        "validation_top_1_raw": raw.top_1,
    }


class Validator:
    """Counts over one split with any set of weights; made in the strategy's scope.

    Args:
        shards: the split.
        record: of the model.
        batch_size: examples of a step over all replicas; the result does not depend on it.
        devices: on what it is computed.
    """

    def __init__(self, shards: Shards, record: ModelRecord, batch_size: int, devices: Devices):
        self._shards, self._record, self._devices = shards, record, devices
        self._batch = max(1, batch_size // devices.num_replicas)
        # The weights in training stay where they are; a second model is evaluated.
        self._model = build_model(record.config)
        self._weights = {name: v.value for name, v in weights_of(self._model).items()}
        self._sums = tf.Variable(tf.zeros([4], tf.float64), trainable=False)
        self._steps = self._make_steps()
        self._loaders: dict[str, Callable[[], None]] = {}

    @property
    def has_begun(self) -> bool:
        """Whether it has evaluated in this process, so that what it runs is compiled."""
        return bool(self._loaders)

    def score(
        self, state: TrainState, which: str, stop: Callable[[], bool] = lambda: False
    ) -> Score | None:
        """Evaluates the 'averages' or 'raw' weights of `state`.

        Args:
            state: whose weights.
            which: set of weights.
            stop: asked between calls, by all workers alike; True gives up.

        Returns:
            The score, or None where `stop` said so.
        """
        if which not in self._loaders:
            self._loaders[which] = self._make_loader(state.weight_variables(which))
        self._loaders[which]()
        batches, num_steps = self._batches()
        iterator = iter(batches)
        done, count = 0, 1
        size = self._batch * self._devices.num_replicas
        with Progress(self._shards.num_examples, "img", "evaluating") as progress:
            while done < num_steps:
                start = time.monotonic()
                self._steps(iterator, tf.constant(min(count, num_steps - done)))
                done = min(done + count, num_steps)
                progress.update(min(count * size, self._shards.num_examples))
                seconds = (time.monotonic() - start) / count
                seconds, asked = self._devices.total([seconds, float(stop())])
                if asked:
                    return None
                mean = seconds / self._devices.num_workers
                count = max(1, min(64, int(_SECONDS_A_CALL / max(mean, 1e-6))))
        loss, top_1, top_5, seen = self._sums.numpy()
        if seen != self._shards.num_examples:
            raise UserError(
                f"{seen:.0f} examples were read of split {self._shards.name!r}, but it should hold"
                f" {self._shards.num_examples}: run `python -m preprocessing.verify`"
            )
        return Score(top_1=top_1 / seen, top_5=top_5 / seen, loss=loss / seen)

    def _make_loader(self, source: dict[str, tf.Variable]) -> Callable[[], None]:
        """A function that takes over the weights `source`, and begins to count."""

        def load() -> None:
            for name, variable in self._weights.items():
                variable.assign(source[name])
            self._sums.assign(tf.zeros_like(self._sums))

        return tf.function(lambda: self._devices.strategy.run(load))

    def _batches(self):
        devices, record = self._devices, self._record
        local = devices.num_replicas // devices.num_workers
        found = {}

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            del context  # Devices knows the same
            found["batches"], found["steps"] = padded_evaluation_batches(
                self._shards,
                self._batch,
                local,
                record.config.resolution,
                record.input_range,
                record.evaluation_preprocessing,
                devices.worker,
                devices.num_workers,
            )
            return found["batches"]

        return devices.strategy.distribute_datasets_from_function(make), found["steps"]

    def _make_steps(self):
        strategy = self._devices.strategy

        @tf.function
        def steps(batches, number: tf.Tensor) -> None:
            for _ in tf.range(number):
                strategy.run(self.count, (next(batches),))

        return steps

    def count(self, batch: dict[str, tf.Tensor]) -> None:
        """Adds what one replica's part of a step counts to the sums, on all replicas."""
        there = batch["class_index"] >= 0
        labels = tf.where(there, batch["class_index"] + self._record.labels.offset, 0)
        logits = tf.cast(self._model(batch["images"], training=False), tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        ranks = label_ranks(logits, labels)
        columns = tf.stack(
            [
                tf.cast(losses, tf.float64),
                tf.cast(ranks < 1, tf.float64),
                tf.cast(ranks < 5, tf.float64),
                tf.ones_like(losses, tf.float64),
            ]
        )
        counted = tf.where(there[tf.newaxis], columns, 0.0)
        context = tf.distribute.get_replica_context()
        self._sums.assign_add(context.all_reduce("SUM", tf.reduce_sum(counted, axis=1)))
