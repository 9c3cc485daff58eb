"""Training and evaluation steps under XLA with static shapes, as TPUs run them.

Every model is lowered to XLA's own ops, where an op of the host alone or a dynamic shape fails. Two
models, which have all kinds of layers between them, are compiled and run as well: compiling for the
processor takes most of the time.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.labels import LabelNumbering
from training.config import OPTIMIZERS, AugmentationFlags, OptimizationFlags
from training.models import ModelRecord, build_model, cpu, make_config, model_names
from training.models.layers import example_noise
from training.optimizers import Optimizer
from training.randomness import example_keys
from training.readers.synthetic import open_synthetic
from training.schedules import make_schedule
from training.state import TrainState
from training.step import Step
from training.strategies import Devices
from training.validation import Validator

IMAGES = tf.random.stateless_normal([4, 32, 32, 3], [0, 1])
LABELS = tf.constant([0, 1, 2, 3])


@pytest.fixture(autouse=True)
def as_on_a_tpu(monkeypatch):
    """Without the ways of computing that are for a CPU."""
    monkeypatch.setattr(cpu, "computes_alone", lambda: False)


def tiny_model(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    config = make_config(
        name, num_classes=5, width_multiplier=0.25, input_shape=(32, 32, 3), stddev=0.09
    )
    return build_model(config.replace(classifier_activation=None, dropout_rate=0.3))


def steps_of(model: keras.Model):
    """A function of (images, labels, keys): evaluated and training logits, and gradients."""
    weights = [variable.value for variable in model.trainable_variables]

    def steps(images, labels, keys):
        evaluated = model(images, training=False)
        with example_noise(keys), tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        return evaluated, logits, tape.gradient(loss, weights)

    return steps


def batch() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return IMAGES, LABELS, tf.constant(example_keys(0, 0, np.arange(4)))


@pytest.mark.parametrize("name", model_names())
def test_every_model_can_be_lowered_to_xla(name):
    steps = tf.function(steps_of(tiny_model(name)), jit_compile=True)
    module = steps.experimental_get_compiler_ir(*batch())(stage="hlo")
    assert "batch-norm-training" in module and "batch-norm-grad" in module


RECORD = ModelRecord(
    make_config(
        "mobilenet_v1", num_classes=5, width_multiplier=0.25, input_shape=(32, 32, 3)
    ).replace(classifier_activation=None),
    LabelNumbering(5, 0),
    tuple("abcde"),
)


def test_the_trainers_whole_step_can_be_lowered_to_xla():
    """Mixing, colour, erasing, accumulation, clipping, update, averages and counts included."""
    options = OptimizationFlags(
        batch_size=4,
        gradient_accumulation=2,
        clip_gradient_norm=1.0,
        ma_decay_rate=0.9,
        label_smoothing=0.1,
    )
    flags = AugmentationFlags(
        augmentation="inception_full", mixup_alpha=0.2, cutmix_alpha=1.0, random_erasing=0.5
    )
    state = TrainState(RECORD.config, options)
    step = Step(state, RECORD, options, flags, make_schedule(options, 1000), None)
    images = {
        "images": tf.zeros([4, 32, 32, 3], tf.uint8),
        "class_index": tf.range(4, dtype=tf.int64),
        "key": tf.constant(example_keys(0, 0, np.arange(4))),
        "example": tf.range(4, dtype=tf.int64),
    }
    compiled = tf.function(step, jit_compile=True)
    module = compiled.experimental_get_compiler_ir(images, tf.constant(0))(stage="hlo")
    assert "batch-norm-grad" in module


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_lowered_to_xla(name):
    weights = {"kernel": keras.Variable(np.ones([3, 3, 2, 4], "f"))}
    optimizer = Optimizer(OptimizationFlags(optimizer_name=name), weights, {"kernel"}, 1e-4)
    update = tf.function(optimizer.update, jit_compile=True)
    gradients = {"kernel": tf.ones([3, 3, 2, 4])}
    arguments = (gradients, tf.constant(0.1), tf.constant(3, tf.int64))
    assert "ENTRY" in update.experimental_get_compiler_ir(*arguments)(stage="hlo")


def test_the_validators_step_can_be_lowered_to_xla():
    validator = Validator(
        open_synthetic("validation"), RECORD, 4, Devices(tf.distribute.get_strategy())
    )
    compiled = tf.function(validator.count, jit_compile=True)
    padded = {"images": IMAGES, "class_index": tf.constant([0, 1, 2, -1], tf.int64)}
    module = compiled.experimental_get_compiler_ir(padded)(stage="hlo")
    assert "convolution" in module


def test_an_op_of_the_host_alone_is_noticed():
    step = tf.function(lambda x: tf.py_function(lambda y: y, [x], tf.float32), jit_compile=True)
    with pytest.raises((tf.errors.OpError, ValueError)):
        step.experimental_get_compiler_ir(IMAGES)(stage="hlo")


@pytest.mark.long
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_small"])
def test_compiled_steps_give_what_plain_ones_give(name):
    model = tiny_model(name)
    before = model.get_weights()
    expected = tf.function(steps_of(model))(*batch())
    moved = model.get_weights()
    model.set_weights(before)
    compiled = tf.function(steps_of(model), jit_compile=True)(*batch())
    for one, other in zip(compiled[:2], expected[:2], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 * np.max(np.abs(other)))
    # Batch norm over the last maps, 4 numbers each, magnifies the rounding of the gradients; some
    # are nothing but rounding: behind batch norm a shift in front of it has no effect.
    whole = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in expected[2]))
    for one, other in zip(compiled[2], expected[2], strict=True):
        assert np.linalg.norm(one - other) <= 0.05 * np.linalg.norm(other) + 1e-3 * whole
    for one, other in zip(model.get_weights(), moved, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert any(not np.array_equal(one, other) for one, other in zip(before, moved, strict=True))
