"""The variational autoencoder: its encoder, its decoder and the terms of its loss.

A variational autoencoder (VAE) learns two networks together. The encoder turns an image x into a
Gaussian q(z | x) over a latent vector z, given by its mean `mu` and the logarithm of its variance
`log_var`. The decoder turns z into a distribution p(x | z) over images, given by `logits`.

Training maximizes the ELBO, a lower bound on log p(x). Its negative has two terms: `loss_bce`
measures how well an image is reconstructed from a sample of z, and `loss_KLD` how far q(z | x) is
from the prior N(0, I).

Reference: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, called "the paper" below
(https://arxiv.org/abs/1312.6114). Example:

    vae = VAE(hidden_units=(448, 224, 224, 224), latent_dim=128, activation="silu")
    mu, log_var = vae.encode(images)            # images: float32 (n, 784) in [0, 1]
    z = reparameterize(mu, log_var, noise)      # noise: standard normal (n, 128)
    logits = vae.decode(z)                      # sigmoid(logits) are the pixels

`loss_bce`, `loss_KLD` and their sum are in nats per image: sums over pixels or latent dimensions.
"""

import itertools
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from support.datasets.types import PIXELS
from support.records import LARGEST_LOG_VAR

# What training and evaluation report for each image; `loss_total` is the -ELBO.
TERMS = ("loss_total", "loss_bce", "loss_KLD", "loss_l2", "RMSE")


class VAE:
    """An encoder and a decoder, each a functional Keras model of fully connected layers.

    It is not a Keras model itself, since train.py has its own training loop; `as_keras_model`
    returns one.

    Args:
        hidden_units: widths of the encoder's hidden layers, in order; the decoder mirrors them.
        latent_dim: size of z.
        activation: activation function of the hidden layers, by its name in Keras.
        residual: whether a hidden layer as wide as the previous hidden layer returns h + f(h)
            instead of f(h), where h is the output of the previous one.
    """

    def __init__(
        self,
        hidden_units: Sequence[int] = (448, 224, 224, 224),
        latent_dim: int = 128,
        activation: str = "silu",
        residual: bool = True,
    ) -> None:
        self.latent_dim = latent_dim
        self.encoder = build_encoder(hidden_units, latent_dim, activation, residual)
        self.decoder = build_decoder(hidden_units, latent_dim, activation, residual)

    def encode(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `mu` and `log_var` of q(z | x), a diagonal Gaussian (paper, eq. 9).

        Images are (n, 784) in [0, 1]; `mu` and `log_var` are each (n, latent_dim), and `log_var` is
        at most `LARGEST_LOG_VAR`.
        """
        return self.encoder(images)

    def decode(self, z: tf.Tensor) -> tf.Tensor:
        """Returns the logits of p(x | z): z (n, latent_dim) -> (n, 784).

        It also decodes L samples of z per image at once: (L, n, latent_dim) -> (L, n, 784).
        """
        return decode(self.decoder, z)

    def adapt_initial_weights(self, mean: NDArray[np.floating]) -> None:
        """Changes random initial weights so that the first steps need not learn what is known.

        The decoder's last bias becomes the logits of the mean training image, which nearly every z
        is then decoded to. The encoder's weights of `log_var` become 0 (as its biases are), so that
        `log_var` is 0, its value in N(0, I), for every image.

        Args:
            mean: the mean training image, (784,) in [0, 1].
        """
        # The logit of a pixel that is always 0 or always 1 would be infinite.
        mean = np.clip(mean, 1e-3, 1 - 1e-3)
        self.decoder.get_layer("logits").bias.assign(np.log(mean / (1 - mean)))
        kernel = self.encoder.get_layer("mu_and_log_var").kernel
        without_log_var = kernel.numpy()
        without_log_var[:, self.latent_dim :] = 0
        kernel.assign(without_log_var)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """All weights: the encoder's first, and each layer's kernel before its bias."""
        return self.encoder.trainable_variables + self.decoder.trainable_variables

    def as_keras_model(self) -> keras.Model:
        """Returns a functional Keras model whose layers are the encoder and the decoder.

        It takes images (n, 784) and returns a dict of `mu`, `log_var` and, at z = mu, `logits`.
        """
        images = keras.Input((PIXELS,), name="images")
        mu, log_var = self.encoder(images)
        outputs = {"mu": mu, "log_var": log_var, "logits": self.decoder(mu)}
        return keras.Model(images, outputs, name="vae")


def build_encoder(
    hidden_units: Sequence[int], latent_dim: int, activation: str, residual: bool
) -> keras.Model:
    """Returns the functional model images (n, 784) -> [`mu`, `log_var`]; arguments: see `VAE`."""
    images = keras.Input((PIXELS,), name="images")
    hidden = hidden_layers(images, hidden_units, activation, residual)
    mu_and_log_var = keras.layers.Dense(2 * latent_dim, name="mu_and_log_var")(hidden)
    mu, log_var = keras.ops.split(mu_and_log_var, 2, axis=-1)
    # Otherwise exp(log_var) could become infinite for an unusual image; usual values are below 1.
    # Beyond the bound the gradient is 0: such an image does not change the encoder's log_var.
    log_var = keras.ops.minimum(log_var, LARGEST_LOG_VAR)
    return keras.Model(images, [mu, log_var], name="encoder")


def build_decoder(
    hidden_units: Sequence[int], latent_dim: int, activation: str, residual: bool
) -> keras.Model:
    """Returns the functional model z (n, latent_dim) -> logits (n, 784); arguments: see `VAE`."""
    z = keras.Input((latent_dim,), name="z")
    hidden = hidden_layers(z, hidden_units[::-1], activation, residual)
    logits = keras.layers.Dense(PIXELS, name="logits")(hidden)
    return keras.Model(z, logits, name="decoder")


def hidden_layers(
    inputs: keras.KerasTensor, widths: Sequence[int], activation: str, residual: bool
) -> keras.KerasTensor:
    """Returns the output of hidden layers of these widths, applied one after the other.

    With `residual`, a layer as wide as the previous one returns h + f(h) instead of f(h), where h
    is the output of the previous one (He et al., "Deep Residual Learning for Image Recognition",
    2016, eq. 1). Without such sums, deeper networks are trained to a worse result than shallow
    ones.
    """
    hidden = keras.layers.Dense(widths[0], activation)(inputs)
    for before, width in itertools.pairwise(widths):
        output = keras.layers.Dense(width, activation)(hidden)
        if residual and width == before:
            output = keras.layers.Add()([hidden, output])
        hidden = output
    return hidden


def decode(decoder: keras.Model, z: tf.Tensor) -> tf.Tensor:
    """Returns the logits (..., 784) of z (..., latent_dim); see `VAE.decode`."""
    # The functional model accepts no other axes than (n, latent_dim).
    logits = decoder(tf.reshape(z, [-1, z.shape[-1]]))
    return tf.reshape(logits, tf.concat([tf.shape(z)[:-1], [PIXELS]], axis=0))


def reparameterize(mu: tf.Tensor, log_var: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Turns noise into samples z of q(z | x): mu + exp(log_var / 2) * noise (paper, eq. 10).

    Args:
        mu, log_var: (n, latent_dim).
        noise: standard normal, (n, latent_dim), or (L, n, latent_dim) for L samples of z.
    """
    return mu + tf.exp(0.5 * log_var) * noise


def loss_bce(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the binary cross-entropy of each image in nats, summed over pixels.

    For binary images, this is the negative log-likelihood of a Bernoulli decoder (paper, appendix
    C.1). For greyscale images in [0, 1] it is not a likelihood, but it is the loss commonly used.

    Args:
        images: (n, 784) in [0, 1].
        logits: (n, 784), or (L, n, 784) for L samples of z.

    Returns:
        (n,), or (L, n)
    """
    # TensorFlow's cross-entropy does not broadcast.
    images = tf.broadcast_to(images, tf.shape(logits))
    pixelwise = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
    return tf.reduce_sum(pixelwise, axis=-1)


def loss_KLD(mu: tf.Tensor, log_var: tf.Tensor) -> tf.Tensor:
    """Returns KL(q(z | x) || N(0, I)) of each image in nats, summed over latent dimensions.

    1/2 sum(exp(log_var) + mu^2 - log_var - 1), which the paper's appendix B gives with its sign
    reversed.

    Args:
        mu, log_var: (n, latent_dim).

    Returns:
        (n,)
    """
    return tf.reduce_sum(kld_per_unit(mu, log_var), axis=-1)


def kld_per_unit(mu: tf.Tensor, log_var: tf.Tensor) -> tf.Tensor:
    """Returns the terms that `loss_KLD` sums, in nats, (n, latent_dim)."""
    return 0.5 * (tf.exp(log_var) + tf.square(mu) - log_var - 1.0)


def loss_l2(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean norm of sigmoid(logits) - images; for shapes see `loss_bce`."""
    return tf.sqrt(tf.reduce_sum(tf.square(tf.sigmoid(logits) - images), axis=-1))


def rmse(l2: tf.Tensor) -> tf.Tensor:
    """Returns the root mean square error over the pixels of each image, given its `loss_l2`."""
    return l2 / PIXELS**0.5


def loss_terms(
    images: tf.Tensor, mu: tf.Tensor, log_var: tf.Tensor, logits: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the terms of the loss, and two measures of the error, for each image.

    Args:
        images: (n, 784) in [0, 1].
        mu, log_var: (n, latent_dim).
        logits: (n, 784) for one sample of z per image, or (L, n, 784) for L samples.

    Returns:
        A dict with the keys in `TERMS` and arrays of shape (n,) or (L, n). `loss_total`, the sum
        of `loss_bce` and `loss_KLD`, is the -ELBO (paper, eq. 3), estimated at each sample of z.
    """
    bce = loss_bce(images, logits)
    l2 = loss_l2(images, logits)
    kld = tf.broadcast_to(loss_KLD(mu, log_var), tf.shape(bce))
    return {
        "loss_total": bce + kld,
        "loss_bce": bce,
        "loss_KLD": kld,
        "loss_l2": l2,
        "RMSE": rmse(l2),
    }


def objective(
    terms: Mapping[str, tf.Tensor], recon_loss: str = "bce", beta: float | tf.Tensor = 1.0
) -> tf.Tensor:
    """Returns what is minimized: reconstruction + beta * `loss_KLD`.

    Args:
        terms: what `loss_terms` returns; averaging over L samples of z gives the estimator in the
            paper's eq. 7.
        recon_loss: `bce` (a Bernoulli decoder) or `l2` (the norm itself, not a likelihood).
        beta: weight of the KL term (Higgins et al. 2017, eq. 4). With `bce` and a weight of 1 the
            objective is the -ELBO.

    Returns:
        A scalar, the mean over images.
    """
    recon = tf.reduce_mean(terms[f"loss_{recon_loss}"])
    return recon + beta * tf.reduce_mean(terms["loss_KLD"])


def log_importance_weights(
    bce: tf.Tensor, mu: tf.Tensor, log_var: tf.Tensor, noise: tf.Tensor
) -> tf.Tensor:
    """Returns log p(x, z) - log q(z | x) of sampled z, the logarithms of importance weights.

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, eq. 7. The
    expectation of such a logarithm over z is the ELBO of the image.

    Args:
        bce: `loss_bce` at z = mu + exp(log_var / 2) * noise, (k, n).
        mu, log_var: (n, latent_dim).
        noise: (k, n, latent_dim).

    Returns:
        (k, n), nats.
    """
    z = reparameterize(mu, log_var, noise)
    # The normalizing constants of p(z) and q(z | x) are the same and cancel.
    return -bce - 0.5 * tf.reduce_sum(tf.square(z) - tf.square(noise) - log_var, axis=-1)
