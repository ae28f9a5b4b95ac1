"""The metrics of trained weights, image by image.

    figures = Evaluator(vae, seed=0)(images)          # images: uint8 (n, 784)
    figures.means()["loss_total"]                     # -ELBO, nats

Nothing here depends on files, flags or training.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import data
import model
from support import noise, records
from support.analysis import fitted_prior

# The pictures in TensorBoard: rows and columns of digits, and the number of digits.
ROWS, COLUMNS = 4, 10
PICTURED = ROWS * COLUMNS
# How many images the fitted prior is evaluated for at a time.
PRIOR_BATCH = 5000


class Figures(NamedTuple):
    """The metrics of n images.

    Attributes:
        values: float (n,) by the names in `model.TERMS`, and `RMSE_mean` (z = mu); with a fitted
            prior also `loss_total_fitted`, the -ELBO under that prior.
        mu, log_var: mean and logarithm of the variance of q(z | x), float32 (n, latent_dim).
        predicted_label: the most probable class under the fitted prior, uint8 (n,); None if there
            is no prior, or it has a single class.
        probability: p(predicted_label | z = mu) under that prior, float32 (n,); None likewise.
    """

    values: dict[str, NDArray[np.floating]]
    mu: NDArray[np.float32]
    log_var: NDArray[np.float32]
    predicted_label: NDArray[np.uint8] | None = None
    probability: NDArray[np.float32] | None = None

    @property
    def encoded(self) -> fitted_prior.Encoded:
        """q(z | x) of the images."""
        return fitted_prior.Encoded(self.mu, self.log_var)

    def add_prior_accuracy(self, labels: NDArray[np.uint8] | None) -> None:
        """Adds `prior_accuracy` to the values: 1 where the predicted label is right, else 0.

        Args:
            labels: (n,); None: there are none, and nothing is added.
        """
        if labels is not None and self.predicted_label is not None:
            self.values["prior_accuracy"] = (self.predicted_label == labels).astype(float)

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric over the images."""
        return {
            name: float(np.mean(values, dtype=np.float64)) for name, values in self.values.items()
        }

    def standard_errors(self) -> dict[str, float]:
        """Returns the standard error of each mean: the sample standard deviation over sqrt(n)."""
        return {
            name: float(np.std(values, ddof=1) / len(values) ** 0.5)
            for name, values in self.values.items()
        }


class Evaluator:
    """Computes the metrics of each image; TensorFlow traces it only once.

    Args:
        vae: the model.
        seed: seed of the noise; the noise of an image depends on its position, not on `batch`.
        batch: how many images are evaluated at a time.
        prior: the fitted prior of these weights; None: there is none.
    """

    def __init__(
        self,
        vae: model.VAE,
        seed: int,
        batch: int = 1000,
        prior: fitted_prior.Mixture | None = None,
    ) -> None:
        self._vae, self._seed, self._batch, self._prior = vae, seed, batch, prior
        self._compiled = tf.function(self._figures, reduce_retracing=True, autograph=False)

    def __call__(self, images: NDArray[np.uint8]) -> Figures:
        """Returns the metrics of images, uint8 (n, 784)."""
        drawn = evaluation_noise(len(images), self._vae.latent_dim, self._seed)
        parts = []
        for part in slices(len(images), self._batch):
            parts.append(self._compiled(tf.constant(images[part]), drawn[part]))
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        mu, log_var = found.pop("mu"), found.pop("log_var")
        figures = Figures(found, mu, log_var)
        if self._prior is None:
            return figures
        return with_prior(figures, self._prior, self._seed)

    def _figures(self, images: tf.Tensor, drawn: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the metrics of some images, uint8 (n, 784), with noise (n, latent_dim)."""
        x = data.to_float(images)
        mu, log_var = self._vae.encode(x)
        z = model.reparameterize(mu, log_var, drawn)
        found = model.loss_terms(x, mu, log_var, self._vae.decode(z))
        found["RMSE_mean"] = model.rmse(model.loss_l2(x, self._vae.decode(mu)))
        found["mu"], found["log_var"] = mu, log_var
        return found


def with_prior(figures: Figures, prior: fitted_prior.Mixture, seed: int) -> Figures:
    """Returns metrics together with those that need the fitted prior.

    Args:
        figures: the metrics of n images without a prior.
        prior: the fitted prior of the same weights.
        seed: seed of the noise with which they were computed.
    """
    images, latent_dim = figures.mu.shape
    drawn = evaluation_noise(images, latent_dim, seed)
    ratios, labels, probabilities = [], [], []
    for part in slices(len(figures.mu), PRIOR_BATCH):
        mu = tf.constant(figures.mu[part])
        z = model.reparameterize(mu, figures.log_var[part], drawn[part])
        ratios.append(prior.log_ratio(z))
        if prior.classifies:
            label, probability = prior.classify(mu)
            labels.append(label)
            probabilities.append(probability)
    fitted = figures.values["loss_total"] - np.concatenate(ratios)
    figures = figures._replace(values=figures.values | {"loss_total_fitted": fitted})
    if not prior.classifies:
        return figures
    return figures._replace(
        predicted_label=np.concatenate(labels), probability=np.concatenate(probabilities)
    )


def evaluation_noise(images: int, latent_dim: int, seed: int) -> tf.Tensor:
    """Returns the noise with which images are evaluated, float32 (images, latent_dim)."""
    return noise.normal([images, latent_dim], seed, noise.EVALUATION, 0)


def slices(count: int, size: int) -> Iterator[slice]:
    """Yields slices of at most `size` that divide `count` items."""
    for first in range(0, count, size):
        yield slice(first, first + size)


def to_uint8(logits: tf.Tensor) -> tf.Tensor:
    """Turns logits into the pixels of images, uint8 of the same shape."""
    return tf.cast(tf.round(255.0 * tf.sigmoid(logits)), tf.uint8)


def encode(vae: model.VAE, images: NDArray[np.uint8], batch: int = 1000) -> fitted_prior.Encoded:
    """Returns q(z | x) of images, uint8 (n, 784)."""

    @functools.partial(tf.function, reduce_retracing=True, autograph=False)
    def encode_batch(part: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return vae.encode(data.to_float(part))

    parts = [encode_batch(tf.constant(images[part])) for part in slices(len(images), batch)]
    mu, log_var = (np.concatenate(column) for column in zip(*parts, strict=True))
    return fitted_prior.Encoded(mu, log_var)


def kld_by_dimension(encoded: fitted_prior.Encoded) -> NDArray[np.float64]:
    """Returns the mean KL divergence of each latent dimension from N(0, 1), nats, (latent_dim,)."""
    kld = model.kld_per_unit(encoded.mu, encoded.log_var).numpy()
    return kld.mean(axis=0, dtype=np.float64)


def posterior(mu: NDArray[np.float32], log_var: NDArray[np.float32]) -> records.Posterior:
    """Returns the moments of q(z | x) over images, from what `encode` returns for them."""
    kld = kld_by_dimension(fitted_prior.Encoded(mu, log_var))
    columns = mu.mean(axis=0, dtype=np.float64), mu.std(axis=0, dtype=np.float64), kld
    return records.Posterior(*(tuple(column.tolist()) for column in columns))


def curve_point(figures: Figures, recon_loss: str, beta: float) -> dict[str, float]:
    """Returns the points of the validation curves, by name.

    Args:
        figures: the metrics of the validation images.
        recon_loss, beta: see `model.objective`.
    """
    means = figures.means()
    points = {name: means[name] for name in model.TERMS}
    points["objective"] = float(model.objective(figures.values, recon_loss, beta))
    points["active_units"] = len(fitted_prior.active_units(figures.mu))
    return points


def pictures(
    vae: model.VAE, images: NDArray[np.uint8], seed: int
) -> Mapping[str, NDArray[np.uint8]]:
    """Returns pictures that show a model learning: the same images and noise at each call.

    Args:
        vae: the model.
        images: uint8 (n, 784), of which at most the first `PICTURED` are used.
        seed: seed of the samples from the prior.

    Returns:
        uint8 (rows, columns, 784) by name: `reconstructions`, in which each row of images is
        above the row of their reconstructions, and `prior_samples`, decoded from N(0, I).
    """
    columns = min(COLUMNS, len(images))
    rows = min(ROWS, len(images) // columns)
    images = images[: rows * columns]
    mu, _ = vae.encode(data.to_float(images))
    z = noise.normal(mu.shape, seed, noise.GENERATION, 0)
    shape = (rows, columns, images.shape[1])
    originals = images.reshape(shape)
    reconstructed = to_uint8(vae.decode(mu)).numpy().reshape(shape)
    pairs = np.stack([originals, reconstructed], axis=1)
    return {
        "reconstructions": pairs.reshape(2 * rows, columns, -1),
        "prior_samples": to_uint8(vae.decode(z)).numpy().reshape(shape),
    }
