"""Step by step against TensorFlow 1's optimizers, schedules and averages."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from training.config import OptimizationFlags
from training.optimizers import MovingAverages, Optimizer
from training.schedules import make_schedule

STEPS = 25


@dataclasses.dataclass
class Weight:
    """The part of a Keras variable that the optimizer uses."""

    value: tf.Variable

    @property
    def shape(self):
        return self.value.shape


def start_values():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype("f") for name, shape in SHAPES.items()}


SHAPES = {"kernel": (3, 4), "bias": (4,)}
INPUTS = np.random.default_rng(1).normal(size=(STEPS, 16, 3)).astype("f")
TARGETS = np.random.default_rng(2).normal(size=(STEPS, 16, 4)).astype("f")


def loss_of(kernel, bias, step):
    return tf.reduce_mean(tf.square(INPUTS[step] @ kernel + bias - TARGETS[step]))


def rate_of(step):
    return 0.05 * 0.9 ** (step // 5)


def our_path(options, decay=0.0):
    weights = {name: Weight(tf.Variable(value)) for name, value in start_values().items()}
    optimizer = Optimizer(options, weights, {"kernel"} if decay else set(), decay)
    path = []
    for step in range(STEPS):
        with tf.GradientTape() as tape:
            loss = loss_of(weights["kernel"].value, weights["bias"].value, step)
        values = {name: weight.value for name, weight in weights.items()}
        optimizer.apply(tape.gradient(loss, values), tf.constant(rate_of(step), tf.float32))
        path.append({name: value.numpy() for name, value in values.items()})
    return path, optimizer


def tf1_path(make_optimizer, decay=0.0):
    """The same in a TensorFlow 1 graph and session."""
    path = []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        values = {n: tf.compat.v1.Variable(v, name=n) for n, v in start_values().items()}
        x, y = (
            tf.compat.v1.placeholder(tf.float32, [16, 3]),
            tf.compat.v1.placeholder(tf.float32, [16, 4]),
        )
        rate = tf.compat.v1.placeholder(tf.float32, [])
        loss = tf.reduce_mean(tf.square(x @ values["kernel"] + values["bias"] - y))
        loss += decay * tf.nn.l2_loss(values["kernel"])
        train = make_optimizer(rate).minimize(loss)
        session.run(tf.compat.v1.global_variables_initializer())
        for step in range(STEPS):
            feed = {x: INPUTS[step], y: TARGETS[step], rate: rate_of(step)}
            session.run(train, feed)
            path.append(session.run(values))
    return path


V1 = tf.compat.v1.train
RULES = {
    "rmsprop": lambda o: (
        lambda rate: V1.RMSPropOptimizer(rate, o.op_decay_rate, o.op_momentum, o.op_epsilon)
    ),
    "momentum": lambda o: lambda rate: V1.MomentumOptimizer(rate, o.op_momentum),
    "sgd": lambda o: V1.GradientDescentOptimizer,
}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("rmsprop", {}),
        ("rmsprop", {"op_decay_rate": 0.5, "op_momentum": 0.0, "op_epsilon": 0.002}),
        ("rmsprop", {"op_decay_rate": 0.99, "op_momentum": 0.5, "op_epsilon": 1e-8}),
        ("momentum", {}),
        ("momentum", {"op_momentum": 0.3}),
        ("sgd", {}),
    ],
)
def test_every_step_is_that_of_tensorflow_1(name, constants, weight_decay):
    options = OptimizationFlags(optimizer_name=name, **constants)
    ours, _ = our_path(options, weight_decay)
    theirs = tf1_path(RULES[name](options), weight_decay)
    assert not np.allclose(ours[0]["kernel"], ours[-1]["kernel"], atol=0.01)
    for one, other in zip(ours, theirs, strict=True):
        for weight in SHAPES:
            np.testing.assert_allclose(one[weight], other[weight], rtol=2e-5, atol=2e-6)


def test_slots_are_kept_by_the_weights_names():
    _, optimizer = our_path(OptimizationFlags(optimizer_name="rmsprop"))
    assert {slot: set(values) for slot, values in optimizer.slots.items()} == {
        "rms": set(SHAPES),
        "momentum": set(SHAPES),
    }


@pytest.mark.parametrize("decay", [0.9999, 0.3])
def test_moving_averages_are_those_of_tensorflow_1_with_the_number_of_updates(decay):
    name = "weight"
    ours, theirs = tf.Variable([1.0, -2.0]), tf.Variable([1.0, -2.0])
    averages = MovingAverages(decay, {name: Weight(ours)})
    step = tf.Variable(0, dtype=tf.int64)
    reference = tf.train.ExponentialMovingAverage(decay, num_updates=step)
    reference.apply([theirs])  # makes the average, from the variable as it is
    for number in range(1, STEPS):
        step.assign(number)
        for variable in (ours, theirs):
            variable.assign_add([0.1 * number, -0.5])
        averages.update(step)
        reference.apply([theirs])
        np.testing.assert_allclose(averages.values[name], reference.average(theirs), rtol=1e-5)
    averages.reset()
    assert np.array_equal(averages.values[name], ours)


def rates(num_examples, positions, **options):
    schedule = make_schedule(OptimizationFlags(**options), num_examples)
    return np.array([schedule(tf.constant(p, tf.int64)).numpy() for p in positions])


@pytest.mark.parametrize(("num_examples", "batch_size"), [(1000, 10), (1_281_167, 64)])
def test_the_exponential_schedule_goes_down_tensorflow_1s_stairs(num_examples, batch_size):
    decay_steps = 2.5 * num_examples / batch_size
    steps = [0, *(int(k * decay_steps) + d for k in range(1, 12) for d in (0, 1))]
    steps += list(range(0, int(12 * decay_steps), max(1, int(decay_steps / 7))))
    ours = rates(num_examples, [step * batch_size for step in steps], lr=0.045, lr_decay_rate=0.94)
    theirs = [
        V1.exponential_decay(0.045, tf.constant(step, tf.int64), decay_steps, 0.94, staircase=True)
        for step in steps
    ]
    theirs = [rate().numpy() if callable(rate) else rate.numpy() for rate in theirs]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert len(set(ours)) == 12


def test_the_rate_falls_exactly_at_the_stairs_edge():
    ours = rates(1000, [2499, 2500, 2501], lr=1.0, lr_decay_rate=0.5)
    assert ours.tolist() == [1.0, 0.5, 0.5]


def test_the_cosine_schedule_is_tensorflow_1s_and_ends_at_zero():
    positions = [0, 1, 999, 5000, 9999, 10_000, 12_000]
    ours = rates(1000, positions, lr=0.1, epochs=10, learning_scheduler_name="cosine")
    theirs = [V1.cosine_decay(0.1, tf.constant(p), 10_000)().numpy() for p in positions]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-8)
    assert ours[0] == np.float32(0.1) and abs(ours[-1]) < 1e-9


def test_the_warm_up_rises_along_a_straight_line_and_then_leaves_the_schedule_alone():
    options = {"lr": 0.2, "learning_scheduler_name": "constant", "warmup_epochs": 2.0}
    positions = [0, 499, 999, 1499, 1999, 2000, 50_000]
    np.testing.assert_allclose(
        rates(1000, positions, **options),
        [0.2 / 2000, 0.05, 0.1, 0.15, 0.2, 0.2, 0.2],
        rtol=1e-6,
    )
    with_decay = {"lr": 0.2, "lr_decay_epochs": 1.0, "lr_decay_rate": 0.5, "warmup_epochs": 2.0}
    np.testing.assert_allclose(
        rates(1000, [999, 1499, 2000], **with_decay), [0.1, 0.5 * 0.15, 0.05], rtol=1e-6
    )
