"""The metrics of trained weights, image by image.

    figures = Evaluator(vae, seed=0)(images)          # images: uint8 (n, 784)
    figures.means()["loss_total"]                     # -ELBO, nats

Nothing here depends on files, flags or training.
"""

from collections.abc import Mapping
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
        shape = [len(images), self._vae.latent_dim]
        drawn = noise.normal(shape, self._seed, noise.EVALUATION, 0)
        parts = []
        for first in range(0, len(images), self._batch):
            part = slice(first, first + self._batch)
            parts.append(self._compiled(tf.constant(images[part]), drawn[part]))
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        mu, log_var = found.pop("mu"), found.pop("log_var")
        predicted, probability = found.pop("predicted_label", None), found.pop("probability", None)
        return Figures(found, mu, log_var, predicted, probability)

    def _figures(self, images: tf.Tensor, drawn: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the metrics of some images, uint8 (n, 784), with noise (n, latent_dim)."""
        x = data.to_float(images)
        mu, log_var = self._vae.encode(x)
        z = model.reparameterize(mu, log_var, drawn)
        found = model.loss_terms(x, mu, log_var, self._vae.decode(z))
        if self._prior:
            found["loss_total_fitted"] = found["loss_total"] - self._prior.log_ratio(z)
            if self._prior.classifies:
                found["predicted_label"], found["probability"] = self._prior.classify(mu)
        found["RMSE_mean"] = model.rmse(model.loss_l2(x, self._vae.decode(mu)))
        found["mu"], found["log_var"] = mu, log_var
        return found


def to_uint8(logits: tf.Tensor) -> tf.Tensor:
    """Turns logits into the pixels of images, uint8 of the same shape."""
    return tf.cast(tf.round(255.0 * tf.sigmoid(logits)), tf.uint8)


def encode(vae: model.VAE, images: NDArray[np.uint8], batch: int = 1000) -> fitted_prior.Encoded:
    """Returns q(z | x) of images, uint8 (n, 784)."""
    parts = [
        vae.encode(data.to_float(images[first : first + batch]))
        for first in range(0, len(images), batch)
    ]
    mu, log_var = (np.concatenate(column) for column in zip(*parts, strict=True))
    return fitted_prior.Encoded(mu, log_var)


def kld_by_dimension(encoded: fitted_prior.Encoded) -> NDArray[np.float64]:
    """Returns the mean KL divergence of each latent dimension from N(0, 1), nats, (latent_dim,)."""
    kld = np.asarray(model.kld_per_unit(encoded.mu, encoded.log_var), np.float64)
    return kld.mean(axis=0)


def posterior(mu: NDArray[np.float32], log_var: NDArray[np.float32]) -> records.Posterior:
    """Returns the moments of q(z | x) over images, from what `encode` returns for them."""
    kld = kld_by_dimension(fitted_prior.Encoded(mu, log_var))
    wide = np.asarray(mu, np.float64)
    columns = wide.mean(axis=0), wide.std(axis=0), kld
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
