"""One step against the same arithmetic written out: loss, gradients, update, counts."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.labels import LabelNumbering
from training.augmentation import prepare
from training.config import AugmentationFlags, OptimizationFlags
from training.models import ModelRecord, build_model, make_config, named_variables
from training.models.layers import example_noise
from training.randomness import example_keys
from training.schedules import make_schedule
from training.state import TrainState
from training.step import make_run_steps
from training.strategies import Devices

CONFIG = make_config(
    "mobilenet_v1", num_classes=3, input_shape=(32, 32, 3), width_multiplier=0.25, dropout_rate=0.5
).replace(classifier_activation=None)
RECORD = ModelRecord(CONFIG, LabelNumbering(3, 0), ("a", "b", "c"))
SGD = OptimizationFlags(
    batch_size=8,
    optimizer_name="sgd",
    lr=1e-4,  # batch norm over a few examples makes longer steps chaotic
    learning_scheduler_name="constant",
    label_smoothing=0.1,
    ma_decay_rate=0.9,
)
AUGMENTATION = AugmentationFlags(mixup_alpha=0.3)


def batch_of(seed: int) -> dict[str, tf.Tensor]:
    draw = np.random.default_rng(seed)
    return {
        "images": tf.constant(draw.integers(0, 256, [8, 32, 32, 3]), tf.uint8),
        "class_index": tf.constant(draw.integers(0, 3, [8])),
        "key": tf.constant(example_keys(seed, 0, np.arange(8))),
        "example": tf.range(8, dtype=tf.int64),
    }


def trained(options: OptimizationFlags, batches, change=lambda state: None) -> TrainState:
    keras.utils.set_random_seed(1)
    state = TrainState(CONFIG, options, steps_per_call=len(batches))
    change(state)
    run_steps = make_run_steps(
        state,
        RECORD,
        options,
        AUGMENTATION,
        make_schedule(options, 1000),
        Devices(tf.distribute.get_strategy()),
    )
    stacked = {name: tf.stack([batch[name] for batch in batches]) for name in batches[0]}
    run_steps(iter(tf.data.Dataset.from_tensor_slices(stacked)), tf.constant(len(batches)))
    return state


def written_out(options: OptimizationFlags, batches) -> tuple[keras.Model, list[float]]:
    """The same with plain SGD: the model afterwards, and the loss of each step."""
    keras.utils.set_random_seed(1)
    model = build_model(CONFIG)
    losses = []
    parts = options.gradient_accumulation
    for batch in batches:
        sums, loss_sum = None, 0.0
        for part in range(parts):
            rows = slice(part * 8 // parts, (part + 1) * 8 // parts)
            images, labels, keys = (batch[n][rows] for n in ("images", "class_index", "key"))
            pixels, targets = prepare(images, labels, keys, AUGMENTATION, 3, 0.1)
            with tf.GradientTape() as tape, example_noise(keys):
                logits = model(pixels, training=True)
                loss = -tf.reduce_sum(targets * tf.nn.log_softmax(logits))
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            sums = (
                gradients if sums is None else [a + b for a, b in zip(sums, gradients, strict=True)]
            )
            loss_sum += float(loss)
        losses.append(loss_sum / 8)
        for variable, gradient in zip(model.trainable_variables, sums, strict=True):
            decays = variable.path.endswith("kernel") and "depthwise" not in variable.path
            decay = CONFIG.weight_decay * variable.value if decays else 0.0
            variable.assign(variable.value - options.lr * (gradient / 8 + decay))
    return model, losses


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_steps_are_those_written_out(parts):
    options = dataclasses.replace(SGD, gradient_accumulation=parts)
    batches = [batch_of(seed) for seed in range(2)]
    state = trained(options, batches)
    model, losses = written_out(options, batches)
    np.testing.assert_allclose(state.losses.numpy(), losses, rtol=1e-3)
    keras.utils.set_random_seed(1)
    start = build_model(CONFIG)
    names = named_variables(model)
    for name, before in named_variables(start).items():
        update = names[name].numpy() - before.numpy()
        error = state.variables[name].numpy() - names[name].numpy()
        assert np.linalg.norm(error) <= 0.02 * np.linalg.norm(update) + 1e-6, name
    assert (int(state.step), int(state.position), int(state.sums["seen"])) == (2, 16, 16)
    np.testing.assert_allclose(float(state.sums["loss"]), 8 * sum(losses), rtol=1e-3)
    assert int(state.broken_step) == -1


def test_dropout_and_mixing_depend_on_the_keys_alone():
    one, other = (trained(SGD, [batch_of(0)]) for _ in range(2))
    assert one.losses.numpy() == other.losses.numpy()
    rekeyed = batch_of(0) | {"key": batch_of(5)["key"]}
    assert trained(SGD, [rekeyed]).losses.numpy() != one.losses.numpy()


def test_steps_after_a_broken_one_change_nothing_that_counts():
    def poison(state):
        # The second batch meets a weight that the first update has made huge.
        state.trainable["Logits.Conv2d_1c_1x1.bias"].assign([0.0, float("nan"), 0.0])

    batches = [batch_of(seed) for seed in range(3)]
    state = trained(SGD, batches, poison)
    fresh = trained(SGD, batches[:1], lambda state: state.broken_step.assign(0))
    assert int(state.broken_step) == 0
    assert (int(state.step), int(state.position), int(state.sums["seen"])) == (0, 0, 0)
    for name in ("Conv2d_0.kernel", "Conv2d_5_depthwise.kernel"):
        before = fresh.trainable[name].numpy()
        assert np.array_equal(state.trainable[name].numpy(), before)
        assert np.array_equal(state.averages.values[name].numpy(), before)
    assert np.isnan(state.losses.numpy()).all()


@pytest.fixture
def float16():
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def test_a_scaled_loss_that_overflows_lets_the_batch_go_and_halves_the_scale(float16):
    state = trained(SGD, [batch_of(0)], lambda state: state.loss_scale.assign(2.0**40))
    assert float(state.loss_scale) == 2.0**39
    assert (int(state.step), int(state.broken_step)) == (1, -1)
    unscaled = trained(SGD, [batch_of(0)], lambda state: state.loss_scale.assign(1.0))
    name = "Conv2d_0.kernel"
    keras.utils.set_random_seed(1)
    before = TrainState(CONFIG, SGD).trainable[name].numpy()
    assert np.array_equal(state.trainable[name].numpy(), before)
    assert not np.array_equal(unscaled.trainable[name].numpy(), before)


def test_the_loss_scale_changes_no_update(float16):
    one, other = (
        trained(SGD, [batch_of(0)], lambda state, s=scale: state.loss_scale.assign(s))
        for scale in (2.0**4, 2.0**8)
    )
    name = "Conv2d_0.kernel"
    keras.utils.set_random_seed(1)
    before = TrainState(CONFIG, SGD).trainable[name].numpy()
    updates = [state.trainable[name].numpy() - before for state in (one, other)]
    assert np.linalg.norm(updates[0]) > 1e-4
    assert np.linalg.norm(updates[0] - updates[1]) < 0.02 * np.linalg.norm(updates[0])
