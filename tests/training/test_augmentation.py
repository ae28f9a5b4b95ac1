"""support/training/augmentation.py: distortion against SciPy's, samples, what each depends on."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import data
from support import noise
from support.training import augmentation

SQUARES = data.load("digits").train.images[:6].reshape(6, 28, 28) / np.float32(255)
FLAT = SQUARES.reshape(6, 784)


def uniform_numbers(count=6, seed=0):
    return np.random.default_rng(seed).random((count, 33), np.float32)


def by_scipy(squares, uniform, displacement):
    """Distorts images one by one as the paper does, with SciPy's interpolation."""
    expected, (y, x) = [], np.indices((28, 28))
    for image, numbers in zip(squares, displacement * (2 * uniform - 1), strict=True):
        from_y, from_x = y, x
        grid = itertools.product((3, 10, 17, 24), repeat=2)
        for (a, b), right, down in zip(grid, numbers[:16], numbers[16:32], strict=True):
            fall_off = np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * 6**2))
            from_x, from_y = from_x + right * fall_off, from_y + down * fall_off
        found = ndimage.map_coordinates(image, [from_y, from_x], order=1, mode="grid-constant")
        expected.append(np.clip(0.5 + 1.4 * (found - 0.5), 0, 1))
    return np.array(expected, np.float32)


@pytest.mark.parametrize("displacement", [0.8, 4.0])
def test_images_are_distorted_as_the_random_numbers_say(displacement):
    """Also so strongly that some pixels come from outside the image, where it is dark."""
    squares = SQUARES if displacement < 1 else np.clip(SQUARES + 0.5, 0, 1)
    images, uniform = tf.constant(squares.reshape(6, 784)), uniform_numbers()
    found = augmentation.distorted(images, displacement, 1.0, uniform).numpy()
    expected = by_scipy(squares, uniform, displacement).reshape(6, 784)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert (found != images.numpy()).any(axis=1).all() and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(augmentation.distorted(images, 0.8, 0.0, uniform), images)


def test_the_share_decides_image_by_image_by_its_last_random_number():
    uniform, shares = uniform_numbers(), np.linspace(0, 1, 6, dtype=np.float32)
    some = augmentation.distorted(tf.constant(FLAT), 0.8, shares, uniform).numpy()
    changed = (some != FLAT).any(axis=1)
    assert (changed == (uniform[:, -1] < shares)).all() and 0 < changed.sum() < 6
    every = augmentation.distorted(tf.constant(FLAT), 0.8, 1.0, uniform).numpy()
    np.testing.assert_array_equal(some[changed], every[changed])


def test_each_step_draws_its_own_distortion_for_each_image():
    """The distortion of a step's images does not depend on the other steps in the call."""
    images = tf.constant(np.tile(FLAT[0], (3, 4, 1)))
    steps = tf.constant([5, 6, 7])
    found = augmentation.elastic(images, 0.8, tf.constant([1.0, 1.0, 1.0]), 3, steps).numpy()
    assert found.shape == (3, 4, 784)
    # Twelve distorted copies of one image, all different.
    assert len(np.unique(found.reshape(12, 784), axis=0)) == 12
    alone = augmentation.elastic(images[1:2], 0.8, tf.constant([1.0]), 3, steps[1:2]).numpy()
    np.testing.assert_array_equal(found[1:2], alone)
    uniform = noise.uniform([4, 33], 3, noise.ELASTIC, 6)
    expected = augmentation.distorted(images[1], 0.8, 1.0, uniform)
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    other_seed = augmentation.elastic(images, 0.8, tf.constant([1.0] * 3), 4, steps).numpy()
    assert (other_seed != found).any(axis=-1).all()


def test_each_step_has_its_own_share():
    images = tf.constant(np.tile(FLAT[:5], (3, 40, 1)))
    shares = tf.constant([0.0, 0.5, 1.0])
    found = augmentation.elastic(images, 0.8, shares, 0, tf.range(3)).numpy()
    distorted = (found != images.numpy()).any(axis=-1).mean(axis=1)
    assert distorted[0] == 0 and 0.35 < distorted[1] < 0.65 and distorted[2] == 1


def test_bernoulli_samples_have_the_grey_value_as_mean_and_are_new_in_each_step():
    grey = np.linspace(0, 1, 784, dtype=np.float32)
    images = tf.constant(np.broadcast_to(grey, (40, 50, 784)))
    drawn = augmentation.bernoulli(images, 0, tf.range(40)).numpy()
    assert set(np.unique(drawn)) == {0, 1} and drawn.dtype == np.float32
    assert np.abs(drawn.mean(axis=(0, 1)) - grey).max() < 6 * 0.5 / 2000**0.5
    assert (drawn[..., 0] == 0).all() and (drawn[..., -1] == 1).all()
    # No two steps, and no two images of a step, share their random numbers.
    assert len(np.unique(drawn.reshape(2000, 784), axis=0)) == 2000
    seventh = tf.constant([7])
    np.testing.assert_array_equal(augmentation.bernoulli(images[7:8], 0, seventh)[0], drawn[7])
    assert (augmentation.bernoulli(images[7:8], 1, seventh)[0].numpy() != drawn[7]).any()
