"""What a model makes of every example of a split: each of them once, on any number of replicas.

The loop keeps five numbers an example; all that is told about a model is worked out from that table
afterwards. Workers share a split in parts of consecutive examples and do not wait for each other
before their tables are put together.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from common.errors import UserError
from common.progress import Progress
from training.input_pipeline import evaluation_batches, padded_evaluation_batches
from training.shards import Shards
from training.strategies import Devices

_COLUMNS = 5  # class index, output predicted, rank, probability, loss


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a photo becomes what a model sees, and a class one of its outputs.

    Attributes:
        resolution: height and width in pixels.
        input_range: the value of a black and of a white pixel.
        preprocessing: name of the function from JPEG bytes to pixels.
        label_offset: output of the first class.
    """

    resolution: tuple[int, int]
    input_range: tuple[float, float] = (-1.0, 1.0)
    preprocessing: str = "inception"
    label_offset: int = 0


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What a model makes of each example; all arrays are (examples,), in the order of examples.

    Attributes:
        example: number of the example in the split, by the order of the shards; int64.
        class_index: the true class; int64.
        predicted: the output with the largest logit; int64.
        rank: how many logits come before the label's, 0 for a right answer: of equal ones the
            first counts as larger, and one that is not a number as larger than all; int64.
        probability: of the output predicted, 0 where the model gave no number; float64.
        loss: cross-entropy in nats; float64.
    """

    example: np.ndarray
    class_index: np.ndarray
    predicted: np.ndarray
    rank: np.ndarray
    probability: np.ndarray
    loss: np.ndarray

    @property
    def num_examples(self) -> int:
        return len(self.example)

    @property
    def is_correct(self) -> np.ndarray:
        return self.rank < 1

    @property
    def num_correct_top_1(self) -> int:
        return int(np.count_nonzero(self.rank < 1))

    @property
    def num_correct_top_5(self) -> int:
        return int(np.count_nonzero(self.rank < 5))

    @property
    def top_1(self) -> float:
        return self.num_correct_top_1 / self.num_examples

    @property
    def top_5(self) -> float:
        return self.num_correct_top_5 / self.num_examples

    @property
    def mean_loss(self) -> float:
        return float(np.mean(self.loss))


class Evaluator:
    """Runs one model over splits.

    Args:
        predict: from (batch, height, width, 3) float32 images to (batch, outputs) logits.
        reading: how photos become such images.
        devices: on what it runs; variables of the model were made in the strategy's scope.
        in_graph: whether `predict` can be part of a TensorFlow function. One that cannot runs
            once a worker, and brings its own threads.
    """

    def __init__(
        self,
        predict: Callable[[tf.Tensor], tf.Tensor],
        reading: Reading,
        devices: Devices,
        in_graph: bool = True,
    ):
        self._reading, self._devices = reading, devices
        self._replicas = devices.num_replicas // devices.num_workers if in_graph else 1
        self._step = self._make_step(predict, in_graph)

    def run(self, shards: Shards, batch_size: int) -> Outcomes:
        """What the model makes of every example of `shards`; all workers get the same.

        Args:
            shards: the split, or a part of one.
            batch_size: images at once over all replicas; the result does not depend on it.

        Raises:
            UserError: not every example came exactly once.
        """
        workers, worker, total = (
            self._devices.num_workers,
            self._devices.worker,
            shards.num_examples,
        )
        bounds = [total * number // workers for number in range(workers + 1)]
        start, stop = bounds[worker], bounds[worker + 1]
        # A worker without examples reads one all the same, so that nobody waits for it.
        first = min(start, total - 1)
        mine = shards.part(first, max(stop, first + 1), shards.name)
        batch = max(1, batch_size // (self._replicas * workers))
        rows = self._collect(self._batches(mine, batch), mine.num_examples)
        rows = rows[rows[:, 0] >= 0][: stop - start] if stop > start else rows[:0]
        if len(rows) != stop - start:
            raise UserError(
                f"{len(rows)} examples were read of split {shards.name!r}, but it should hold"
                f" {stop - start}: run `python -m preprocessing.verify`"
            )
        return _outcomes(self._gathered(rows, start, total), shards.first_example)

    def _batches(self, shards: Shards, batch: int) -> Iterable:
        reading = self._reading
        what = (reading.resolution, reading.input_range, reading.preprocessing)
        if self._replicas == 1:
            return evaluation_batches(shards, batch, *what)
        found = {}

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            del context  # the part is this worker's already
            found["batches"], found["steps"] = padded_evaluation_batches(
                shards, batch, self._replicas, *what
            )
            return found["batches"]

        batches = self._devices.strategy.distribute_datasets_from_function(make)
        return itertools.islice(iter(batches), found["steps"])

    def _collect(self, batches: Iterable, total: int) -> np.ndarray:
        """The columns of every place in `batches`, as (places, 5) float32."""
        tables: list[np.ndarray] = []
        correct = seen = 0
        with Progress(total, "img", "evaluating") as progress:
            # One step behind, so that a device computes while the last step's numbers are looked
            # at here.
            for result in _one_behind(self._step(batch) for batch in batches):
                for part in self._devices.strategy.experimental_local_results(result):
                    tables.append(part.numpy())
                    is_there = tables[-1][:, 0] >= 0
                    count = int(np.count_nonzero(is_there))
                    correct += int(np.count_nonzero(is_there & (tables[-1][:, 2] < 1)))
                    seen += count
                    progress.update(count, f"top-1 {correct / max(1, seen):.4f}")
        return np.concatenate(tables)

    def _make_step(self, predict, in_graph: bool):
        offset, strategy = self._reading.label_offset, self._devices.strategy
        if not in_graph:
            score = tf.function(lambda *values: score_batch(*values, offset), reduce_retracing=True)
            return lambda batch: score(predict(batch["images"]), batch["class_index"])

        def on_replica(images, class_index):
            return score_batch(predict(images), class_index, offset)

        # The last batch of one replica may be smaller, and is no reason to trace the model again.
        signature = [
            tf.TensorSpec([None, *self._reading.resolution, 3], tf.float32),
            tf.TensorSpec([None], tf.int64),
        ]

        @tf.function(input_signature=signature if self._replicas == 1 else None)
        def step(images, class_index):
            return strategy.run(on_replica, (images, class_index))

        return lambda batch: step(batch["images"], batch["class_index"])

    def _gathered(self, rows: np.ndarray, start: int, total: int) -> np.ndarray:
        """The rows of all workers, (total, 5) float64."""
        if self._devices.num_workers == 1:
            return rows.astype(np.float64)
        # A column of ones counts how often each example came.
        table = np.zeros([total, _COLUMNS + 1])
        table[start : start + len(rows)] = np.pad(rows, [(0, 0), (0, 1)], constant_values=1)
        summed = np.reshape(self._devices.total(table.ravel().tolist()), table.shape)
        if not np.all(summed[:, -1] == 1):
            raise UserError(
                "workers disagree on who evaluates which example: do all read the same?"
            )
        return summed[:, :-1]


def score_batch(logits: tf.Tensor, class_index: tf.Tensor, offset: int) -> tf.Tensor:
    """What is kept of a batch.

    Args:
        logits: (batch, outputs).
        class_index: (batch,) int64; negative where there is no example.
        offset: output of the first class.

    Returns:
        (batch, 5) float32: class index, output predicted, rank of the label, probability of the
        output predicted, loss.
    """
    logits = tf.cast(logits, tf.float32)
    labels = tf.where(class_index >= 0, class_index + offset, 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    probability = tf.reduce_max(tf.nn.softmax(logits), axis=1)
    columns = (
        class_index,
        tf.argmax(logits, axis=1),
        label_ranks(logits, labels),
        tf.where(tf.math.is_nan(probability), 0.0, probability),
        losses,
    )
    return tf.stack([tf.cast(column, tf.float32) for column in columns], axis=1)


def label_ranks(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """How many logits come before the label's, 0 for a right answer; (batch,) int32.

    Of equal logits the first counts as larger, and one that is not a number as larger than all.
    """
    of_label = tf.gather(logits, labels, axis=1, batch_dims=1)[:, tf.newaxis]
    earlier = tf.range(tf.shape(logits, tf.int64)[1]) < labels[:, tf.newaxis]
    # Asked for by name: graph optimisation makes "larger" of "not smaller or equal".
    no_number = tf.math.is_nan(logits) | tf.math.is_nan(of_label)
    before = (logits > of_label) | ((logits == of_label) & earlier) | no_number
    return tf.reduce_sum(tf.cast(before, tf.int32), axis=1)


def _outcomes(table: np.ndarray, first_example: int) -> Outcomes:
    class_index, predicted, rank = (table[:, column].astype(np.int64) for column in range(3))
    numbers = first_example + np.arange(len(table), dtype=np.int64)
    return Outcomes(numbers, class_index, predicted, rank, table[:, 3], table[:, 4])


def _one_behind(values: Iterable) -> Iterable:
    """The same values, each handed out after the next one was made."""
    waiting: list = []
    for value in values:
        waiting.append(value)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
