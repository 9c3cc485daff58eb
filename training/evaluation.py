"""Counts over a data set: every example once, the last partial batch too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from common.errors import UserError
from common.progress import Progress
from preprocessing.manifest import Manifest
from training.models import ModelRecord, check_input_range

NUM_WORST_MISTAKES = 24


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An example that the model got wrong: its file, and class indices."""

    file_name: str
    class_index: int
    predicted_output: int
    probability: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model makes of a data set.

    Attributes:
        num_examples: examples counted.
        num_correct_top_1: the label has the largest logit; of equal ones the first counts as
            larger, and one that is not a number as larger than all others.
        num_correct_top_5: at most four logits are larger than the label's.
        loss: mean cross-entropy, in nats.
        confusion: (classes, outputs) counts, rows true classes, columns the output predicted.
        mistakes: the most confident ones, most confident first.
    """

    num_examples: int
    num_correct_top_1: int
    num_correct_top_5: int
    loss: float
    confusion: np.ndarray
    mistakes: tuple[Mistake, ...]

    @property
    def top_1(self) -> float:
        return self.num_correct_top_1 / self.num_examples

    @property
    def top_5(self) -> float:
        return self.num_correct_top_5 / self.num_examples


def evaluate(
    predict: Callable[[tf.Tensor], tf.Tensor],
    batches: tf.data.Dataset,
    manifest: Manifest,
    record: ModelRecord,
) -> Evaluation:
    """Runs `predict` over `batches` and counts.

    Args:
        predict: from (batch, height, width, 3) float32 images to (batch, outputs) logits.
        batches: as `training.input_pipeline.evaluation_batches` makes them.
        manifest: of the split that the batches hold.
        record: of the model.

    Raises:
        UserError: the images do not lie in the range that the model expects, or batches and
            manifest hold different numbers of examples.
    """
    correct_1 = correct_5 = total = 0
    loss = 0.0
    confusion: np.ndarray | None = None
    mistakes: list[Mistake] = []
    with Progress(manifest.num_examples, "img", "evaluating") as progress:
        for batch in batches:
            if total == 0:
                check_input_range(batch["images"].numpy(), record.input_range)
            logits = predict(batch["images"])
            scores = _scores(logits, batch["class_index"] + record.labels.offset)
            losses, ranks, predicted, probabilities = (value.numpy() for value in scores)
            classes = batch["class_index"].numpy()
            if confusion is None:
                confusion = np.zeros([len(manifest.classes), logits.shape[-1]], np.int64)
            np.add.at(confusion, (classes, predicted), 1)
            total += len(classes)
            correct_1 += int(np.sum(ranks < 1))
            correct_5 += int(np.sum(ranks < 5))
            loss += float(np.sum(losses, dtype=np.float64))
            mistakes += [
                Mistake(
                    batch["file_name"][i].numpy().decode("utf-8", "replace"),
                    int(classes[i]),
                    int(predicted[i]),
                    float(probabilities[i]),
                )
                for i in np.flatnonzero(ranks >= 1)
            ]
            mistakes = sorted(mistakes, key=lambda m: -m.probability)[:NUM_WORST_MISTAKES]
            progress.update(len(classes), f"top-1 {correct_1 / total:.4f}")
    if total != manifest.num_examples:
        raise UserError(
            f"{total} examples were read of split {manifest.split!r}, but its manifest counts"
            f" {manifest.num_examples}: run `python -m preprocessing.verify`"
        )
    return Evaluation(total, correct_1, correct_5, loss / total, confusion, tuple(mistakes))


@tf.function(reduce_retracing=True)
def _scores(logits: tf.Tensor, labels: tf.Tensor):
    """Loss, rank of the label (0 is best), output predicted and its probability, by example."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    ranks = label_ranks(logits, labels)
    predicted = tf.argmax(logits, axis=1)
    return losses, ranks, predicted, tf.reduce_max(tf.nn.softmax(logits), axis=1)


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
