import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UsageError
from training.augmentation import prepare
from training.augmentation.beta import symmetric_beta
from training.augmentation.mixing import draw_mix
from training.config import AugmentationFlags
from training.randomness import example_keys

PLAIN = AugmentationFlags(augmentation="none", input_range=(0.0, 255.0))
MIXUP = dataclasses.replace(PLAIN, mixup_alpha=1.0)
CUTMIX = dataclasses.replace(PLAIN, cutmix_alpha=1.0)
BOTH = dataclasses.replace(PLAIN, mixup_alpha=1.0, cutmix_alpha=1.0)
SMOOTHING = 0.1


def batch(count, size=16):
    """Images of one grey each, so that the parts of a mixture can be told; every label once."""
    greys = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(greys[:, None, None, None], (count, size, size, 3))
    keys = example_keys(0, 0, np.arange(count))
    return tf.constant(images), tf.range(count, dtype=tf.int64), tf.constant(keys)


def mixed(flags, count=64, size=16):
    images, labels, keys = batch(count, size)
    pixels, targets = prepare(images, labels, keys, flags, count, SMOOTHING)
    return pixels.numpy(), targets.numpy()


def own_part(targets):
    """How much of each target is its own label's, the smoothing taken off."""
    count = len(targets)
    return (np.diag(targets) - SMOOTHING / count) / (1 - SMOOTHING)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 2.0, 8.0])
def test_beta_samples_have_numpys_quantiles(alpha):
    uniform = (np.arange(2**18) + 0.5) / 2**18
    ours = symmetric_beta(tf.constant(uniform, tf.float32), alpha).numpy()
    theirs = np.sort(np.random.default_rng(0).beta(alpha, alpha, 400_000))
    # Above 1/2, float32 cannot tell numbers next to 1 apart: by symmetry, one half says it all.
    np.testing.assert_allclose(ours[::-1], 1 - ours, atol=1e-6)
    probabilities = np.linspace(0.01, 0.49, 49)
    # A quantile of a sample of n is off by sqrt(p (1 - p) / n) in probability: compare there.
    levels = np.quantile(ours, probabilities)
    reached = np.searchsorted(theirs, levels) / len(theirs)
    np.testing.assert_allclose(reached, probabilities, atol=0.004)


def test_beta_is_exact_where_a_formula_is_known():
    u = np.linspace(0.0, 1.0, 1001, dtype=np.float32)[:-1]
    np.testing.assert_allclose(symmetric_beta(u, 1.0), u, atol=1e-6)
    np.testing.assert_allclose(symmetric_beta(u, 0.5), np.sin(np.pi * u / 2) ** 2, atol=2e-6)
    x = symmetric_beta(u, 2.0).numpy().astype(float)
    np.testing.assert_allclose(3 * x**2 - 2 * x**3, u, atol=2e-6)


@pytest.mark.parametrize("flags", [MIXUP, CUTMIX, BOTH])
def test_targets_are_those_of_the_two_neighbours(flags):
    _, targets = mixed(flags)
    count = len(targets)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-5)
    part = own_part(targets)
    expected = np.full((count, count), SMOOTHING / count)
    for row in range(count):
        expected[row, row] += (1 - SMOOTHING) * part[row]
        expected[row, row ^ 1] += (1 - SMOOTHING) * (1 - part[row])
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    np.testing.assert_allclose(part[::2], part[1::2], atol=1e-5)  # shared by the pair


def test_mixup_mixes_pixels_as_it_mixes_targets():
    pixels, targets = mixed(MIXUP)
    part, own = own_part(targets), np.arange(len(targets))
    expected = part * own + (1 - part) * (own ^ 1)
    np.testing.assert_allclose(pixels.min(axis=(1, 2, 3)), expected, atol=1e-3)
    np.testing.assert_allclose(pixels.max(axis=(1, 2, 3)), expected, atol=1e-3)
    assert np.ptp(part) > 0.8


def test_cutmix_swaps_one_box_between_neighbours_and_counts_its_pixels():
    pixels, targets = mixed(CUTMIX)
    part = own_part(targets)
    boxes = 0
    for row in range(len(pixels)):
        swapped = np.isclose(pixels[row, :, :, 0], row ^ 1, atol=1e-3)
        kept = np.isclose(pixels[row, :, :, 0], row, atol=1e-3)
        assert np.array_equal(swapped, ~kept)
        assert 1 - swapped.mean() == pytest.approx(part[row], abs=1e-4)
        rows, columns = swapped.any(axis=1), swapped.any(axis=0)
        assert np.array_equal(swapped, rows[:, None] & columns[None])
        for line in (rows, columns):
            assert np.count_nonzero(np.diff(np.r_[0, line, 0])) in (0, 2)  # one piece
        partner = np.isclose(pixels[row ^ 1, :, :, 0], row, atol=1e-3)
        assert np.array_equal(swapped, partner)
        boxes += swapped.any()
    assert boxes > 0.8 * len(pixels)


def test_cutmix_boxes_have_the_area_that_lambda_says_where_they_fit():
    draws = np.full((256, 4), 0.5, np.float32)
    draws[:, 1] = np.linspace(0.0, 0.999, 256)
    mix = draw_mix(tf.constant(draws), (64, 48), 0.0, 1.0)
    # Beta(1, 1) is uniform: lambda is the draw of the pair's first.
    removed = 1 - np.repeat(draws[::2, 1], 2)
    np.testing.assert_allclose(mix.targets[:, 0], removed, atol=0.04)
    np.testing.assert_allclose(
        tf.reduce_mean(mix.pixels, axis=(1, 2)), mix.targets[:, 0], atol=1e-6
    )


def test_cutmix_reaches_every_pixel():
    pixels, _ = mixed(CUTMIX, count=200, size=8)
    swapped = np.isclose(pixels[..., 0], (np.arange(200) ^ 1)[:, None, None], atol=1e-3)
    share = swapped.mean(axis=0)
    assert share.min() > 0.03 and share.max() < 0.7


def test_with_both_half_of_the_pairs_get_each():
    pixels, _ = mixed(BOTH, count=200, size=8)
    uneven = np.ptp(pixels, axis=(1, 2, 3)) > 0.5
    whole = np.isclose(pixels[:, 0, 0, 0] % 1, 0, atol=1e-3) & ~uneven
    cut = (uneven | whole)[::2]
    assert 30 < cut.sum() < 70
    assert np.array_equal(uneven[::2], uneven[1::2])


def test_a_pair_is_mixed_alike_in_any_batch():
    images, labels, keys = batch(8)
    whole = prepare(images, labels, keys, BOTH, 8, 0.0)
    part = prepare(images[4:6], labels[4:6], keys[4:6], BOTH, 8, 0.0)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[4:6], b)


@pytest.mark.parametrize("flags", [MIXUP, CUTMIX])
def test_an_odd_batch_is_refused(flags):
    images, labels, keys = batch(7)
    with pytest.raises(UsageError, match="batch per replica must be even, not 7"):
        prepare(images, labels, keys, flags, 7, 0.0)
    prepare(images, labels, keys, PLAIN, 7, 0.0)
