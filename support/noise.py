"""All random numbers except the initial weights, as functions of (seed, stream, step, position).

Nothing here keeps state, so a number never depends on where a call, a chunk or a process began: a
resumed run draws the same numbers as an uninterrupted one, and N workers draw the same numbers as
one. Each purpose has its own stream of TensorFlow's generator. NumPy's generators are seeded by
(seed, epoch) for the order of images, by (seed, BINARIZATION) for the fixed Bernoulli sample, and
by the seed for the fit of the prior.

Inside XLA, TensorFlow's stateless generator is slow and gives different numbers for the same
arguments: call these functions outside of what is compiled with `jit_compile=True`.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

# The streams of TensorFlow's stateless generator.
TRAINING = 1
EVALUATION = 2
GENERATION = 3
BINARIZATION = 4
IMPORTANCE_SAMPLING = 5
ELASTIC = 6
PRIOR = 7


def normal(shape: list[int], seed: int, stream: int, step: "int | tf.Tensor") -> "tf.Tensor":
    """Returns standard normal noise, float32 of `shape`."""
    import tensorflow as tf

    return tf.random.stateless_normal(shape, _key(seed, stream, step))


def uniform(shape: list[int], seed: int, stream: int, step: "int | tf.Tensor") -> "tf.Tensor":
    """Returns noise uniform in [0, 1), float32 of `shape`."""
    import tensorflow as tf

    return tf.random.stateless_uniform(shape, _key(seed, stream, step))


def antithetic_normal(
    shape: list[int], samples: int, seed: int, stream: int, step: "int | tf.Tensor"
) -> "tf.Tensor":
    """Returns standard normal noise in antithetic pairs, float32 (samples, *shape).

    Antithetic (Hammersley and Morton 1956) means that the second half of the samples are the
    negatives of the first half; if their number is odd, one has no partner. Whatever is linear in
    the noise cancels within a pair, so the variance of the gradient is lower than with independent
    samples.
    """
    import tensorflow as tf

    drawn = normal([math.ceil(samples / 2), *shape], seed, stream, step)
    return tf.concat([drawn, -drawn], axis=0)[:samples]


def for_each_step(draw: "Callable[[Any], tf.Tensor]", steps: "tf.Tensor") -> "tf.Tensor":
    """Returns what `draw` returns for each number in `steps`, as float32 (steps, ...)."""
    import tensorflow as tf

    return tf.map_fn(draw, steps, fn_output_signature=tf.float32)


def epoch_order(images: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Returns the order in which an epoch visits the images: a permutation of 0 to images - 1."""
    return np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)


def bernoulli_sample(images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Returns one fixed Bernoulli sample of each image, uint8 0 or 255.

    The probability that a pixel is 255 is its intensity divided by 255. The random number of a
    pixel depends on its position in `images`.
    """
    drawn = np.random.default_rng([seed, BINARIZATION]).random(images.shape, np.float32)
    return np.where(255 * drawn < images, np.uint8(255), np.uint8(0))


def evaluation_images(images: NDArray[np.uint8], binarized: bool, seed: int) -> NDArray[np.uint8]:
    """Returns images, uint8 (n, 784), as a model is evaluated on them.

    Args:
        images: greyscale images.
        binarized: whether the model was trained on Bernoulli samples of the images; if so, it is
            evaluated on one fixed sample.
        seed: seed of that sample.
    """
    if binarized:
        return bernoulli_sample(images, seed)
    return images


def generator(seed: int) -> np.random.Generator:
    """Returns a NumPy generator with a seed, for a computation that draws in a fixed order."""
    return np.random.default_rng(seed)


def _key(seed: int, stream: int, step: "int | tf.Tensor") -> "tf.Tensor":
    """Returns the key of a stateless generator, two integers, which depends on every argument."""
    import tensorflow as tf

    return tf.random.experimental.stateless_fold_in(tf.stack([seed, stream]), step)
