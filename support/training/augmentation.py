"""Elastic distortion and Bernoulli samples of training images, resampled at every step.

The random numbers depend only on (seed, step, position in the batch): see support/noise.py.
"""

import numpy as np
import tensorflow as tf

from support import noise
from support.datasets.types import PIXELS, SIDE

# Displacements are drawn for a grid of 4x4 points in the image.
GRID_POINTS = 4
# The effect of a displacement falls off around its grid point like a Gaussian with this standard
# deviation, in pixels.
FALL_OFF = 6
# Interpolation blurs: the mean entropy of a pixel in MNIST's distorted images is 1.6 times that in
# undistorted ones. This contrast makes them equal.
CONTRAST = 1.4
# Per image: two for each grid point, and one that decides whether the image is distorted at all.
UNIFORM_NUMBERS = 2 * GRID_POINTS**2 + 1


def elastic(
    images: tf.Tensor, displacement: float, share: tf.Tensor, seed: int, steps: tf.Tensor
) -> tf.Tensor:
    """Distorts a fraction of the images of several steps, to resemble other people's handwriting.

    Args:
        images: float32 (steps, batch, 784) in [0, 1].
        displacement: see `distorted`.
        share: the fraction of each step's images to distort, float32 (steps,) in [0, 1].
        seed: seed of the random numbers.
        steps: the number of each step in the run, int32 (steps,).

    Returns:
        float32 (steps, batch, 784) in [0, 1].
    """
    batch = images.shape[1]
    flat = tf.reshape(images, [-1, PIXELS])
    uniform = noise.for_each_step(
        lambda step: noise.uniform([batch, UNIFORM_NUMBERS], seed, noise.ELASTIC, step), steps
    )
    uniform = tf.reshape(uniform, [-1, UNIFORM_NUMBERS])
    # Compiled, since XLA fuses about thirty operations per pixel into a single pass.
    compiled = tf.function(distorted, jit_compile=True, autograph=False)
    return tf.reshape(compiled(flat, displacement, tf.repeat(share, batch), uniform), images.shape)


def distorted(
    images: tf.Tensor, displacement: float, share: tf.Tensor, uniform: tf.Tensor
) -> tf.Tensor:
    """Elastic distortion, in the manner of Simard, Steinkraus and Platt (2003).

    Every pixel is moved by a smooth random field of displacements. Values between pixels are
    interpolated linearly, then sharpened by `CONTRAST`.

    Args:
        images: float32 (n, 784) in [0, 1].
        displacement: the largest displacement of a grid point in each direction, in pixels; those
            of neighbouring points add up.
        share: the probability that an image is distorted, a number or (n,); other images do not
            change.
        uniform: random numbers in [0, 1), float32 (n, UNIFORM_NUMBERS).

    Returns:
        float32 (n, 784) in [0, 1]; everything outside of an image counts as dark.
    """
    to_right, down = tf.split(displacement * (2 * uniform[:, :-1] - 1), 2, axis=1)
    pixel_rows, pixel_columns = np.indices((SIDE, SIDE), np.float32).reshape(2, -1)
    field = _field(pixel_rows, pixel_columns)
    found = _interpolated(images, pixel_columns + to_right @ field, pixel_rows + down @ field)
    sharpened = tf.clip_by_value(0.5 + CONTRAST * (found - 0.5), 0, 1)
    chosen = uniform[:, -1:] < tf.reshape(share, [-1, 1])
    return tf.where(chosen, sharpened, images)


def _field(pixel_rows: np.ndarray, pixel_columns: np.ndarray) -> np.ndarray:
    """Returns how strongly each grid point's displacement moves each pixel, float32 (16, 784)."""
    grid = np.linspace(3, SIDE - 4, GRID_POINTS)
    squares = [(pixel_columns - x) ** 2 + (pixel_rows - y) ** 2 for x in grid for y in grid]
    return np.exp(np.asarray(squares, np.float32) / (-2 * FALL_OFF**2))


def _interpolated(images: tf.Tensor, columns: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns the values of images at positions between pixels, by linear interpolation.

    Args:
        images: float32 (n, 784).
        columns, rows: the position from which each pixel takes its value, float32 (n, 784).

    Returns:
        float32 (n, 784)
    """
    # A frame of dark pixels around each image stands for everything outside of it.
    side = SIDE + 2
    framed = tf.pad(tf.reshape(images, [-1, SIDE, SIDE]), [[0, 0], [1, 1], [1, 1]])
    framed = tf.reshape(framed, [-1])
    x = tf.clip_by_value(columns + 1, 0, side - 1)
    y = tf.clip_by_value(rows + 1, 0, side - 1)
    left = tf.minimum(tf.floor(x), side - 2)
    top = tf.minimum(tf.floor(y), side - 2)
    image_starts = side**2 * tf.range(tf.shape(images)[0])[:, None]
    first = image_starts + tf.cast(side * top + left, tf.int32)
    top_left, top_right = tf.gather(framed, first), tf.gather(framed, first + 1)
    bottom_left, bottom_right = tf.gather(framed, first + side), tf.gather(framed, first + side + 1)
    upper = top_left + (x - left) * (top_right - top_left)
    lower = bottom_left + (x - left) * (bottom_right - bottom_left)
    return upper + (y - top) * (lower - upper)


def bernoulli(images: tf.Tensor, seed: int, steps: tf.Tensor) -> tf.Tensor:
    """Returns a Bernoulli sample of the images of several steps.

    Args:
        images: float32 (steps, batch, 784) in [0, 1], the probabilities of 1.
        seed: seed of the random numbers.
        steps: the number of each step in the run, int32 (steps,).

    Returns:
        float32 (steps, batch, 784), 0 or 1.
    """
    shape = [images.shape[1], PIXELS]
    uniform = noise.for_each_step(
        lambda step: noise.uniform(shape, seed, noise.BINARIZATION, step), steps
    )
    return tf.cast(uniform < images, tf.float32)
