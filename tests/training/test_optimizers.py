"""Step by step against TensorFlow 1's optimizers and averages, Keras' optimizers, and numpy."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.config import OPTIMIZERS, OptimizationFlags
from training.optimizers import MovingAverages, Optimizer, clip

STEPS = 25
KERNEL, BIAS, GAMMA = "Conv2d_0.kernel", "Logits.bias", "Conv2d_0.BatchNorm.gamma"
SHAPES = {KERNEL: (3, 3, 2, 5), BIAS: (4,), GAMMA: (7,)}
ADAM = {"op_decay_rate": 0.999, "op_epsilon": 1e-6}


@dataclasses.dataclass
class Weight:
    """The part of a Keras variable that the optimizer uses."""

    value: tf.Variable

    @property
    def shape(self):
        return self.value.shape


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype("f") for name, shape in SHAPES.items()}


START = drawn(0)
GRADIENTS = [drawn(1 + step) for step in range(STEPS)]


def rate_of(step):
    return np.float32(0.05 * 0.9 ** (step // 5))


def our_path(options, l2=0.0, in_graph=True, start=None):
    """The weights after each step, and the optimizer."""
    start = start or START
    weights = {name: Weight(tf.Variable(value)) for name, value in start.items()}
    optimizer = Optimizer(options, weights, {KERNEL}, l2)
    update = tf.function(optimizer.update) if in_graph else optimizer.update
    path = []
    for step in range(STEPS):
        gradients = {name: tf.constant(GRADIENTS[step][name]) for name in start}
        update(gradients, tf.constant(rate_of(step)), tf.constant(step, tf.int64))
        path.append({name: weight.value.numpy() for name, weight in weights.items()})
    return path, optimizer


def tf1_path(make_optimizer, l2=0.0):
    """The same in a TensorFlow 1 graph and session."""
    path = []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        values = {n: tf.compat.v1.Variable(v, name=n) for n, v in START.items()}
        fed = {n: tf.compat.v1.placeholder(tf.float32, shape) for n, shape in SHAPES.items()}
        rate = tf.compat.v1.placeholder(tf.float32, [])
        loss = tf.add_n([tf.reduce_sum(values[name] * fed[name]) for name in SHAPES])
        if l2:
            loss += l2 * tf.nn.l2_loss(values[KERNEL])
        train = make_optimizer(rate).minimize(loss)
        session.run(tf.compat.v1.global_variables_initializer())
        for step in range(STEPS):
            feed = {fed[name]: GRADIENTS[step][name] for name in SHAPES}
            session.run(train, {**feed, rate: rate_of(step)})
            path.append(session.run(values))
    return path


def keras_path(optimizer, names):
    values = [keras.Variable(START[name]) for name in names]
    optimizer.build(values)
    if optimizer.weight_decay:
        undecayed = [v for v, name in zip(values, names, strict=True) if name != KERNEL]
        optimizer.exclude_from_weight_decay(var_list=undecayed)
    path = []
    for step in range(STEPS):
        optimizer.learning_rate = rate_of(step)
        optimizer.apply([tf.constant(GRADIENTS[step][name]) for name in names], values)
        path.append({n: v.numpy() for n, v in zip(names, values, strict=True)})
    return path


def numpy_lamb(options):
    """Algorithm 2 of arXiv:1904.00962 in double precision, with a plain Adam beside the kernel."""
    first, second = options.op_momentum, options.decay_rate
    weights = {name: value.astype("d") for name, value in START.items()}
    m, v = ({name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))
    path = []
    for step in range(STEPS):
        for name in SHAPES:
            gradient = GRADIENTS[step][name].astype("d")
            m[name] = first * m[name] + (1 - first) * gradient
            v[name] = second * v[name] + (1 - second) * gradient**2
            m_hat, v_hat = m[name] / (1 - first ** (step + 1)), v[name] / (1 - second ** (step + 1))
            r = m_hat / (np.sqrt(v_hat) + options.epsilon)
            if name == KERNEL:
                r = r + options.op_weight_decay * weights[name]
                r = r * np.sqrt(np.sum(weights[name] ** 2)) / np.sqrt(np.sum(r**2))
            weights[name] = weights[name] - rate_of(step) * r
        path.append(dict(weights))
    return path


def check_paths(ours, theirs, rtol=1e-4, atol=5e-6):
    """Small differences may add up over the steps; a wrong rule is far off."""
    assert len(ours) == len(theirs) == STEPS
    for name in theirs[0]:
        assert not np.allclose(ours[0][name], ours[-1][name], atol=0.01)
    for one, other in zip(ours, theirs, strict=True):
        for name in other:
            np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=atol)


V1 = tf.compat.v1.train
RULES = {
    "rmsprop": lambda o: (
        lambda rate: V1.RMSPropOptimizer(rate, o.decay_rate, o.op_momentum, o.epsilon)
    ),
    "momentum": lambda o: lambda rate: V1.MomentumOptimizer(rate, o.op_momentum),
    "sgd": lambda o: V1.GradientDescentOptimizer,
    "adam": lambda o: lambda rate: V1.AdamOptimizer(rate, o.op_momentum, o.decay_rate, o.epsilon),
}
CONSTANTS = [
    ("rmsprop", {}),
    ("rmsprop", {"op_decay_rate": 0.5, "op_momentum": 0.0, "op_epsilon": 0.002}),
    ("rmsprop", {"op_decay_rate": 0.99, "op_momentum": 0.5, "op_epsilon": 1e-8}),
    ("momentum", {}),
    ("momentum", {"op_momentum": 0.3}),
    ("sgd", {}),
    ("adam", ADAM),
    ("adam", {"op_momentum": 0.5, "op_decay_rate": 0.9, "op_epsilon": 0.1}),
    ("adam", {"op_momentum": 0.0, "op_decay_rate": 0.9, "op_epsilon": 1.0}),
]


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize(("name", "constants"), CONSTANTS)
def test_every_step_is_that_of_tensorflow_1(name, constants, l2, in_graph):
    options = OptimizationFlags(optimizer_name=name, **constants)
    ours, _ = our_path(options, l2, in_graph)
    theirs = tf1_path(RULES[name](options), l2)
    check_paths(ours, theirs)
    if name != "adam" and not l2:  # the sums of decay and gradient may be rounded otherwise
        for one, other in zip(ours, theirs, strict=True):
            assert all(np.array_equal(one[weight], other[weight]) for weight in SHAPES)


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_is_that_of_keras_and_decays_kernels_only(decay, in_graph):
    options = OptimizationFlags(optimizer_name="adamw", op_weight_decay=decay, **ADAM)
    theirs = keras.optimizers.AdamW(
        weight_decay=decay, beta_1=0.9, beta_2=options.decay_rate, epsilon=options.epsilon
    )
    ours, _ = our_path(options, in_graph=in_graph)
    check_paths(ours, keras_path(theirs, list(SHAPES)))
    plain, _ = our_path(OptimizationFlags(optimizer_name="adam", **ADAM))
    for name in SHAPES:
        decayed = name == KERNEL and decay > 0
        assert np.allclose(ours[-1][name], plain[-1][name], atol=1e-3) != decayed


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize(
    "constants",
    [ADAM, {**ADAM, "op_weight_decay": 0.5}, {"op_decay_rate": 0.5, "op_momentum": 0.0}],
)
def test_lamb_is_the_papers_algorithm(constants, in_graph):
    options = OptimizationFlags(optimizer_name="lamb", **constants)
    check_paths(our_path(options, in_graph=in_graph)[0], numpy_lamb(options))


def test_lamb_without_decay_is_that_of_keras_on_kernels():
    options = OptimizationFlags(optimizer_name="lamb", **ADAM)
    theirs = keras.optimizers.Lamb(beta_1=0.9, beta_2=0.999, epsilon=options.epsilon)
    check_paths(our_path(options)[0], keras_path(theirs, [KERNEL]))


def test_lamb_moves_a_kernel_of_zeros_and_leaves_one_without_gradient():
    options = OptimizationFlags(optimizer_name="lamb", **ADAM)
    zeros = {KERNEL: np.zeros(SHAPES[KERNEL], "f")}
    path, _ = our_path(options, start=zeros)
    # From zero, Adam's step as it is: its first has the length of the rate everywhere.
    np.testing.assert_allclose(np.abs(path[0][KERNEL]), rate_of(0), rtol=1e-3)
    assert np.all(np.isfinite(path[-1][KERNEL]))
    weights = {KERNEL: Weight(tf.Variable(START[KERNEL]))}
    optimizer = Optimizer(options, weights, set(), 0.0)
    optimizer.update({KERNEL: tf.zeros(SHAPES[KERNEL])}, tf.constant(0.1), tf.constant(0, tf.int64))
    assert np.array_equal(weights[KERNEL].value, START[KERNEL])


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("rmsprop", {"rms", "momentum"}),
        ("momentum", {"momentum"}),
        ("sgd", set()),
        *((name, {"mean", "square"}) for name in ("adam", "adamw", "lamb")),
    ],
)
def test_slots_are_kept_by_the_weights_names(name, slots):
    weights = {name: Weight(tf.Variable(value)) for name, value in START.items()}
    optimizer = Optimizer(OptimizationFlags(optimizer_name=name), weights, set(), 0.0)
    assert {s: set(values) for s, values in optimizer.slots.items()} == {
        slot: set(SHAPES) for slot in slots
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_from_its_slots_and_its_step(name):
    """All that a rule remembers is in the slots and in the number of updates."""
    options = OptimizationFlags(optimizer_name=name, op_weight_decay=0.1, **ADAM)
    whole, _ = our_path(options)
    weights = {n: Weight(tf.Variable(value)) for n, value in START.items()}
    optimizer = Optimizer(options, weights, {KERNEL}, 0.0)
    for step in range(STEPS):
        if step == 11:
            stored = {s: {n: v.numpy() for n, v in o.items()} for s, o in optimizer.slots.items()}
            weights = {n: Weight(tf.Variable(w.value.numpy())) for n, w in weights.items()}
            optimizer = Optimizer(options, weights, {KERNEL}, 0.0)
            for slot, values in stored.items():
                for n, value in values.items():
                    optimizer.slots[slot][n].assign(value)
        gradients = {n: tf.constant(g) for n, g in GRADIENTS[step].items()}
        optimizer.update(gradients, tf.constant(rate_of(step)), tf.constant(step, tf.int64))
    for n, weight in weights.items():
        np.testing.assert_allclose(weight.value, whole[-1][n], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1000.0])
def test_clipping_is_that_of_tensorflow(max_norm):
    gradients = {name: tf.constant(value) for name, value in GRADIENTS[0].items()}
    ours, norm = clip(gradients, max_norm)
    theirs, their_norm = tf.clip_by_global_norm(list(gradients.values()), max_norm)
    flat = np.concatenate([value.ravel() for value in GRADIENTS[0].values()])
    np.testing.assert_allclose(norm, np.linalg.norm(flat), rtol=1e-6)
    np.testing.assert_allclose(norm, their_norm, rtol=1e-6)
    for one, other in zip(ours.values(), theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_without_a_limit_gradients_stay_and_their_norm_is_told():
    gradients = {"a": tf.constant([30.0]), "b": tf.constant([40.0])}
    ours, norm = clip(gradients, 0.0)
    assert norm == 50.0
    assert all(ours[name] is gradients[name] for name in gradients)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("in_graph", [True, False])
def test_a_broken_gradient_is_not_clipped_into_a_small_one(bad, in_graph):
    gradients = {"a": tf.constant([bad], tf.float32), "b": tf.constant([40.0])}
    clipped = tf.function(clip) if in_graph else clip
    ours, norm = clipped(gradients, 1.0)
    assert not np.isfinite(norm)
    assert all(np.isnan(gradient).all() for gradient in ours.values())


def test_a_single_replica_has_nothing_to_reduce():
    gradients = {"a": tf.constant([1.0]), "b": tf.constant([[2.0]])}
    reduced = Optimizer.reduce(gradients)
    assert list(reduced) == ["a", "b"]
    assert all(reduced[name] is gradients[name] for name in gradients)


# Devices are fixed when TensorFlow starts, so that several of them need a process.
ON_REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from unittest import mock
import keras
import numpy as np
from tests.training.test_optimizers import ADAM, GRADIENTS, KERNEL, START, our_path, rate_of
from training.config import OptimizationFlags
from training.optimizers import Optimizer

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for rule in ("rmsprop", "adamw", "lamb"):
    options = OptimizationFlags(optimizer_name=rule, op_weight_decay=0.1, **ADAM)
    with strategy.scope():
        weights = {name: keras.Variable(value) for name, value in START.items()}
        optimizer = Optimizer(options, weights, {KERNEL}, 0.01)

    def one_step(gradients, rate, step):
        # Replica 0 has three times the gradient, replica 1 the negative of twice the gradient.
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        factor = tf.where(replica == 0, 3.0, -2.0)
        mine = {name: gradient * factor for name, gradient in gradients.items()}
        optimizer.update(Optimizer.reduce(mine), rate, step)

    @tf.function
    def step_on_all(gradients, rate, step):
        strategy.run(one_step, (gradients, rate, step))

    kind = tf.distribute.ReplicaContext
    counted = mock.patch.object(kind, "all_reduce", autospec=True, side_effect=kind.all_reduce)
    with counted as all_reduce:
        for step in range(5):
            gradients = {name: tf.constant(g) for name, g in GRADIENTS[step].items()}
            step_on_all(gradients, tf.constant(rate_of(step)), tf.constant(step, tf.int64))
        # Traced once by each replica, whatever the number of weights and steps.
        assert all_reduce.call_count == 2, all_reduce.call_count
    expected = our_path(options, 0.01)[0][4]
    for name in START:
        for value in strategy.experimental_local_results(weights[name].value):
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)
"""


def test_two_replicas_update_as_one_with_the_summed_gradients():
    process = subprocess.run(
        [sys.executable, "-c", ON_REPLICAS], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]


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
