"""What a student learns from a teacher, and the teachers that do not fit."""

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from common.labels import LabelNumbering
from loaders.open import ModelRequest, open_checkpoint
from tests.training.distribution import losses_of
from tests.training.runs import flags_of
from training.augmentation import prepare
from training.checkpoints import DIRECTORY, write_weights
from training.config import OptimizationFlags
from training.distillation import Teacher, distillation_loss
from training.input_pipeline import TrainingInput, training_batches
from training.models import ModelRecord, build_model, make_config, named_variables
from training.models.mobilenet import weights_of
from training.shards import Shards
from training.train import train

from .conftest import TF1_CHECKPOINT

CLASSES = ("ant", "bee", "cat")
IMAGES = np.random.default_rng(5).uniform(-1, 1, (4, 32, 32, 3)).astype("f")


def record_of(num_outputs, classes=CLASSES, size=32, model="mobilenet_v1", **fields):
    config = make_config(
        model, num_classes=num_outputs, width_multiplier=0.25, input_shape=(size, size, 3)
    ).replace(classifier_activation=None)
    labels = LabelNumbering(len(classes), num_outputs - len(classes))
    return ModelRecord(config, labels, classes, **fields)


def save(record, directory):
    """A run's record and checkpoint, of a model that tells images apart."""
    model = build_model(record.config)
    rng = np.random.default_rng(0)
    for name, variable in named_variables(model).items():
        if name.endswith(("gamma", "beta", "bias")):
            variable.assign(rng.normal(1.0, 0.5, variable.shape))
    weights = {name: variable.numpy() for name, variable in weights_of(model).items()}
    write_weights(str(directory / DIRECTORY), weights)
    record.write(str(directory))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Directory and Keras model of a teacher of three outputs."""
    directory = tmp_path_factory.mktemp("teacher")
    return directory, save(record_of(3), directory)


def teacher_of(directory, student, weight=0.5, temperature=1.0):
    options = OptimizationFlags(
        teacher_checkpoint=str(directory),
        distillation_weight=weight,
        distillation_temperature=temperature,
    )
    return Teacher(options, student)


def softmax(logits):
    powers = np.exp(logits.astype("d"))
    return powers / powers.sum(axis=-1, keepdims=True)


def divergence(student, teacher, temperature=1.0):
    """T^2 * sum p (log p - log q), plainly and in double precision."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * np.sum(p * (np.log(p) - np.log(q)), axis=-1)


def drawn_logits(outputs, seed, scale=3.0):
    return np.random.default_rng(seed).normal(0, scale, (4, outputs)).astype("f")


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_the_loss_is_the_divergence_from_the_teacher(temperature):
    student, teacher = drawn_logits(7, 1), drawn_logits(7, 2)
    ours = distillation_loss(tf.constant(student), tf.constant(teacher), temperature)
    np.testing.assert_allclose(ours, divergence(student, teacher, temperature), rtol=1e-5)
    assert np.all(ours > 0.01)
    # It is no symmetric measure: which one is which matters.
    other = distillation_loss(tf.constant(teacher), tf.constant(student), temperature)
    assert not np.allclose(ours, other, rtol=0.01)


def test_a_teacher_that_is_sure_breaks_nothing():
    student, teacher = tf.constant([[0.0, 0.0]]), tf.constant([[2000.0, -2000.0]])
    np.testing.assert_allclose(distillation_loss(student, teacher, 1.0), np.log(2.0), rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_gradient_is_that_of_soft_targets_and_leaves_the_teacher_alone(temperature):
    student, teacher = tf.Variable(drawn_logits(5, 1)), tf.Variable(drawn_logits(5, 2))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(distillation_loss(student, teacher, temperature))
    ours, theirs = tape.gradient(loss, (student, teacher))
    expected = softmax(student.numpy() / temperature) - softmax(teacher.numpy() / temperature)
    np.testing.assert_allclose(ours, temperature * expected, rtol=1e-4, atol=1e-6)
    assert theirs is None


def test_a_teacher_equal_to_the_student_teaches_nothing(saved):
    directory, student = saved
    teacher = teacher_of(directory, record_of(3), temperature=2.0)
    with tf.GradientTape() as tape:
        logits = student(IMAGES, training=False)
        loss = teacher.loss(logits, IMAGES)
    weights = student.trainable_variables
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    assert np.ptp(logits) > 0.1  # so that it is no zero of a dead model
    np.testing.assert_allclose(loss, np.zeros(4), atol=1e-6)
    assert all(np.abs(gradient).max() < 1e-5 for gradient in gradients)
    # Another student is taught.
    assert np.all(teacher.loss(logits + np.float32([1.0, 0.0, 0.0]), IMAGES) > 1e-3)


def test_the_teacher_is_frozen_and_sees_as_in_evaluation(saved):
    directory, model = saved
    teacher = teacher_of(directory, record_of(3))
    before = [variable.numpy() for variable in teacher.model.variables]
    student = drawn_logits(3, 4)
    loss = tf.function(teacher.loss)(tf.constant(student), tf.constant(IMAGES))
    expected = divergence(student, model(IMAGES, training=False).numpy())
    np.testing.assert_allclose(loss, expected, rtol=1e-3, atol=1e-5)
    assert teacher.model.trainable_variables == []
    for one, other in zip(before, teacher.model.variables, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_weight_divides_the_loss_between_labels_and_teacher(saved, weight):
    directory, model = saved
    teacher = model(IMAGES, training=False).numpy()
    student, losses = drawn_logits(3, 4), np.array([1.0, 2.0, 3.0, 4.0], "f")
    ours = teacher_of(directory, record_of(3), weight).mixed(losses, tf.constant(student), IMAGES)
    expected = (1 - weight) * losses + weight * divergence(student, teacher)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("students", "teachers"), [(3, 4), (4, 3), (4, 4)])
def test_a_background_output_of_one_alone_is_left_out(tmp_path, students, teachers):
    teacher = save(record_of(teachers), tmp_path)(IMAGES, training=False).numpy()
    student = drawn_logits(students, 4)
    ours = teacher_of(tmp_path, record_of(students)).loss(tf.constant(student), IMAGES)
    if students != teachers:
        # The distributions given that it is no background: the classes' part, which sums to 1.
        classes = [softmax(side)[:, -3:] for side in (student, teacher)]
        student, teacher = (np.log(side / side.sum(axis=1, keepdims=True)) for side in classes)
    np.testing.assert_allclose(ours, divergence(student, teacher), rtol=1e-3, atol=1e-5)


def test_a_teacher_may_be_of_another_family(tmp_path):
    record = record_of(3, model="mobilenet_v3_small")
    save(record, tmp_path)
    teacher = teacher_of(tmp_path, record_of(3))
    assert teacher.record.config.name == "mobilenet_v3_small"
    assert teacher.loss(drawn_logits(3, 1), IMAGES).shape == (4,)


@pytest.mark.parametrize("num_classes", [17, 16])
def test_a_tf1_checkpoint_teaches_at_the_students_resolution(num_classes):
    classes = tuple(f"class {number}" for number in range(num_classes))
    teacher = teacher_of(TF1_CHECKPOINT, record_of(num_classes, classes))
    assert teacher.record.config.input_shape == (32, 32, 3)
    assert teacher.record.labels == LabelNumbering(num_classes, 17 - num_classes)
    loss = teacher.loss(drawn_logits(num_classes, 1), IMAGES)
    assert loss.shape == (4,) and np.all(loss > 0)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"classes": ("ant", "bee", "dog")}, "class 2 is 'cat' for .*, but 'dog' in the data set"),
        ({"num_outputs": 2, "classes": ("ant", "bee")}, "made for 3 \\(label offset 0\\)"),
        ({"num_outputs": 7, "classes": tuple("abcdefg")}, "7 classes, but the model has 3 outputs"),
        ({"input_range": (0.0, 1.0)}, r"expects pixels in \[-1, 1\], .* \[0, 1\]: pass .*=-1,1"),
        ({"size": 64}, "takes images of 32 x 32 pixels, but .* 64 x 64 .*: pass --resolution=32"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_in_one_line(saved, student, message):
    with pytest.raises(UserError, match=f"^--teacher_checkpoint: .*{message}") as error:
        teacher_of(saved[0], record_of(**{"num_outputs": 3, **student}))
    assert "\n" not in str(error.value)


def test_a_teacher_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=f"--teacher_checkpoint: .*{re.escape(str(tmp_path))}/no"):
        teacher_of(tmp_path / "no", record_of(3))


def test_a_run_with_a_teacher_has_the_loss_that_numpy_finds(drawn_data, finished, tmp_path):
    """Of its first step, in which the student has its initial weights."""
    weight, temperature = 0.3, 2.0
    groups = flags_of(
        drawn_data,
        tmp_path,
        model={"dropout_rate": 0.0},
        data={"eval_split": ""},
        optimization={
            "epochs": 1,
            "ma_decay_rate": 0.0,
            "teacher_checkpoint": str(finished),
            "distillation_weight": weight,
            "distillation_temperature": temperature,
        },
        run={"keep_checkpoints": 10},
    )
    train(*groups)
    options = TrainingInput(12, (32, 32), seed=0, augmentation=groups[2])
    shards = Shards.open(drawn_data, "train")
    batch = next(iter(training_batches(shards, options, 0)))
    pixels, targets = prepare(
        batch["images"], batch["class_index"], batch["key"], groups[2], 2, label_smoothing=0.0
    )
    student = open_checkpoint(str(tmp_path / "checkpoints" / "ckpt-0"), ModelRequest()).build()
    teacher = open_checkpoint(str(finished), ModelRequest()).build()
    ours = student(pixels, training=True).numpy()
    theirs = teacher(pixels, training=False).numpy()
    cross_entropy = -np.sum(targets.numpy() * np.log(softmax(ours)), axis=-1)
    soft, wanted = softmax(ours / temperature), softmax(theirs / temperature)
    divergence = temperature**2 * np.sum(wanted * (np.log(wanted) - np.log(soft)), axis=-1)
    expected = np.mean((1 - weight) * cross_entropy + weight * divergence)
    assert losses_of(tmp_path)[0] == pytest.approx(expected, rel=1e-4)
    assert abs(expected - np.mean(cross_entropy)) > 0.01


def test_another_teacher_is_another_run(drawn_data, tmp_path):
    """The directory is the same, but its newest checkpoint is not."""
    teacher = tmp_path / "teacher"
    save(record_of(2, ("blue", "red")), teacher)
    groups = flags_of(
        drawn_data,
        tmp_path / "run",
        data={"eval_split": ""},
        optimization={"epochs": 1, "teacher_checkpoint": str(teacher)},
    )
    train(*groups)
    train(*groups)  # it goes on with the same one
    shutil.rmtree(teacher / DIRECTORY)
    other = build_model(record_of(2, ("blue", "red")).config)
    weights = {name: variable.numpy() + 0.1 for name, variable in weights_of(other).items()}
    write_weights(str(teacher / DIRECTORY), weights)
    with pytest.raises(UserError, match=r"teacher_fingerprint .* -> .*--allow_changes"):
        train(*groups)
