"""Distillation: the student learns the outputs of a frozen teacher too (arXiv:1503.02531)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from training.config import OptimizationFlags
from training.initial import open_teacher
from training.models import ModelRecord


class Teacher:
    """A frozen model that sees the student's images.

    Made in the scope of the strategy that trains the student, as its weights are variables.

    Where one of the two has a background output and the other has none, the distributions are
    compared over the classes that both have: the background output is dropped, and the others are
    normalised without it.

    Args:
        options: the checkpoint, the weight of its outputs in the loss, and the temperature.
        student: what the student is, as it is written beside its weights.

    Attributes:
        path: the checkpoint's prefix.
        fingerprint: by which a run sees, when it goes on, whether the teacher is still the same.
        record: what the teacher is.
        model: the Keras model, with logits as output.

    Raises:
        UserError: the checkpoint cannot be read, or teacher and student do not fit each other.
    """

    def __init__(self, options: OptimizationFlags, student: ModelRecord):
        opened = open_teacher(options.teacher_checkpoint, student)
        self.path, self.record = opened.path, opened.record
        self.fingerprint = _fingerprint(opened.values)
        self.model = opened.build()
        self.model.trainable = False
        self._options, self._num_classes = options, student.labels.num_classes

    def mixed(self, losses: tf.Tensor, student_logits: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """(1 - w) * losses + w * `loss`, w being `--distillation_weight`; (batch,) float32."""
        weight = self._options.distillation_weight
        losses = tf.cast(losses, tf.float32)
        return (1.0 - weight) * losses + weight * self.loss(student_logits, images)

    def loss(self, student_logits: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """How far the student is from the teacher, for each example.

        Args:
            student_logits: (batch, outputs of the student).
            images: (batch, height, width, 3) float32, what the student was given.

        Returns:
            (batch,) float32, see `distillation_loss`.
        """
        teacher_logits = self.model(images, training=False)
        if student_logits.shape[-1] != teacher_logits.shape[-1]:
            student_logits, teacher_logits = (
                logits[:, -self._num_classes :] for logits in (student_logits, teacher_logits)
            )
        return distillation_loss(
            student_logits, teacher_logits, self._options.distillation_temperature
        )


def _fingerprint(values: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of weights, in whatever file they lie."""
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values[name]))
    return digest.hexdigest()


def distillation_loss(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float
) -> tf.Tensor:
    """T^2 * KL(teacher || student) of each example, in nats, at temperature T.

    The factor keeps the gradients as long as they are at T = 1, whatever the temperature. No
    gradient flows into the teacher.

    Args:
        student_logits: (batch, outputs).
        teacher_logits: (batch, outputs).
        temperature: both sides' logits are divided by it.

    Returns:
        (batch,) float32.
    """
    student, teacher = (
        tf.nn.log_softmax(tf.cast(logits, tf.float32) / temperature)
        for logits in (student_logits, tf.stop_gradient(teacher_logits))
    )
    return temperature**2 * tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1)
