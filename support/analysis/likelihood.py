"""The likelihood of images by importance sampling, under N(0, I) and under the fitted prior."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import data
import model
from support import noise
from support.analysis import fitted_prior

# Images are evaluated in blocks, each with its own noise; no data set fills this many blocks.
BLOCK = 10_000
MOST_BLOCKS = 128
# Samples of z per compiled call.
CHUNK = 10


def nll(
    vae: model.VAE,
    images: NDArray[np.uint8],
    samples: int,
    seed: int,
    prior: fitted_prior.Mixture | None = None,
    report_share: Callable[[float], None] | None = None,
    *,
    chunk: int = CHUNK,
) -> dict[str, NDArray[np.float64]]:
    """Estimates -log p(x) of each image by importance sampling, in constant memory.

    The estimate is -log of the mean over z ~ q(z | x) of p(x, z) / q(z | x) (Burda, Grosse and
    Salakhutdinov 2016, eq. 8). Its expectation is above the true value, and approaches it with more
    samples.

    Args:
        vae: the model.
        images: uint8 (n, 784), 0 or 255.
        samples: how many samples of z per image.
        seed: seed of the noise, which also depends on the sample's number and the image's position.
        prior: the fitted prior of these weights; None: there is none.
        report_share: called repeatedly with the fraction that is done; None: no report.
        chunk: samples per compiled call; the result does not depend on it.

    Returns:
        float64 (n,), nats, by name: `nll` under N(0, I) and, with `prior`, `nll_fitted` under
        `prior`, from the same samples.
    """
    estimator = _Estimator(vae, seed, prior, chunk)
    found = []
    for number, start in enumerate(range(0, len(images), BLOCK)):
        x = data.to_float(images[start : start + BLOCK])
        for share in estimator.add_samples(x, number, samples):
            if report_share:
                report_share((start + len(x) * share) / len(images))
        found.append(np.log(samples) - estimator.log_sums.numpy())
    return dict(zip(("nll", "nll_fitted"), np.concatenate(found, axis=1), strict=False))


class _Estimator:
    """Sums of importance weights.

    Args:
        vae, seed, prior, chunk: see `nll`.
    """

    def __init__(
        self, vae: model.VAE, seed: int, prior: fitted_prior.Mixture | None, chunk: int
    ) -> None:
        self._vae, self._seed, self._prior, self._chunk = vae, seed, prior, chunk
        self._add_chunk = tf.function(self._added, jit_compile=True, autograph=False)
        self._draw_chunk = tf.function(self._drawn, autograph=False)

    def add_samples(self, x: tf.Tensor, block: int, samples: int) -> Iterator[float]:
        """Sums the weights of all samples of a block; yields the fraction of them that is done.

        Afterwards `log_sums` is the log of the sums, float64 (1 or 2, n): under N(0, I), and
        under the fitted prior.

        Args:
            x: float32 (n, 784), the images of the block.
            block: the number of the block.
            samples: how many samples of z per image.
        """
        mu, log_var = self._vae.encode(x)
        priors = 2 if self._prior else 1
        self.log_sums = tf.fill([priors, len(x)], tf.constant(-np.inf, tf.float64))
        for first in range(0, samples, self._chunk):
            drawn = self._draw_chunk(tf.constant(first), tf.constant(block), len(x))
            count = tf.constant(min(self._chunk, samples - first))
            self.log_sums = self._add_chunk(x, mu, log_var, drawn, self.log_sums, count)
            yield min(1, (first + self._chunk) / samples)

    def _drawn(self, first: tf.Tensor, block: tf.Tensor, count: int) -> tf.Tensor:
        """Returns the noise of a chunk of samples, float32 (chunk, count, latent_dim)."""
        shape = [count, self._vae.latent_dim]
        stream = noise.IMPORTANCE_SAMPLING

        def one_sample(number: tf.Tensor) -> tf.Tensor:
            return noise.normal(shape, self._seed, stream, MOST_BLOCKS * number + block)

        return noise.for_each_step(one_sample, first + tf.range(self._chunk))

    def _added(
        self,
        x: tf.Tensor,
        mu: tf.Tensor,
        log_var: tf.Tensor,
        drawn: tf.Tensor,
        total: tf.Tensor,
        count: tf.Tensor,
    ) -> tf.Tensor:
        """Returns `total` with the weights of the first `count` samples of a chunk added."""

        def add(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            z = model.reparameterize(mu, log_var, drawn[i])
            bce = model.loss_bce(x, self._vae.decode(z))
            weights = [model.log_importance_weights(bce[None], mu, log_var, drawn[i][None])[0]]
            if self._prior:
                weights.append(weights[0] + self._prior.log_ratio(z))
            # One by one, so that the order of additions does not depend on the chunk.
            total = tf.reduce_logsumexp([total, tf.cast(weights, tf.float64)], axis=0)
            return i + 1, total

        return tf.while_loop(lambda i, _: i < count, add, (tf.constant(0), total))[1]
