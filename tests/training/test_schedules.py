"""Learning rates against TensorFlow 1's schedules, Keras' and figures worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.config import SCHEDULES, OptimizationFlags
from training.schedules import make_schedule

V1 = tf.compat.v1.train


def rates(num_examples, positions, **options):
    """As a training step computes them: in a graph."""
    schedule = tf.function(make_schedule(OptimizationFlags(**options), num_examples))
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


@pytest.mark.parametrize("num_examples", [1000, 1_281_167])
def test_the_stepwise_schedule_is_that_of_keras(num_examples):
    boundaries = (30.0, 60.0, 80.0)
    edges = [round(epoch * num_examples) for epoch in boundaries]
    positions = sorted({0, *(edge + d for edge in edges for d in (-64, -1, 0, 1, 64)), 10**9})
    options = {"lr": 0.4, "lr_decay_rate": 0.1, "lr_boundaries": boundaries}
    ours = rates(num_examples, positions, learning_scheduler_name="stepwise", **options)
    # Keras' value falls behind a boundary, ours with the first example of the boundary's epoch.
    theirs = keras.optimizers.schedules.PiecewiseConstantDecay(
        [edge - 1 for edge in edges], [0.4, 0.04, 0.004, 0.0004]
    )
    expected = [float(theirs(tf.constant(p, tf.int64))) for p in positions]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert len(set(ours)) == 4


def test_a_boundary_may_lie_within_an_epoch():
    options = {"lr": 1.0, "lr_decay_rate": 0.5, "lr_boundaries": (0.5, 2.25)}
    ours = rates(1000, [499, 500, 2249, 2250], learning_scheduler_name="stepwise", **options)
    assert ours.tolist() == [1.0, 0.5, 0.5, 0.25]


def test_the_constant_schedule_stays():
    ours = rates(1000, [0, 10**6, 10**12], lr=0.3, learning_scheduler_name="constant")
    assert ours.tolist() == [np.float32(0.3)] * 3


def test_the_warm_up_rises_along_a_straight_line():
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


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_the_warm_up_and_is_left_alone_behind_it(name):
    options = {"lr": 0.2, "learning_scheduler_name": name, "lr_boundaries": (1.0, 4.0)}
    positions = np.array([0, 100, 999, 1500, 2999, 3000, 5000, 29_000])
    plain = rates(1000, positions, **options)
    warm = rates(1000, positions, warmup_epochs=3.0, **options)
    np.testing.assert_allclose(warm, plain * np.minimum((positions + 1) / 3000, 1.0), rtol=1e-5)
    assert np.all(plain > 0)
