"""The variational autoencoder: Encoder, Decoder, VAE and the terms of its loss.

Nothing here knows files, flags or plots. Kingma and Welling, "Auto-Encoding Variational Bayes",
2014 (https://arxiv.org/abs/1312.6114), called "the paper" below. From Python:

    vae = VAE(hidden_units=(512, 256), latent_dim=128, activation="silu")
    mu, log_var = vae.encode(images)            # images: float32 (n, 784) in [0, 1]
    z = vae.reparameterize(mu, log_var, noise)  # noise: standard normal (n, 128)
    logits = vae.decode(z)                      # sigmoid(logits) are the pixels

Sums run over pixels or latent dimensions, so every term is in nats per image.
"""

import itertools
import math

import keras
import tensorflow as tf

SIDE = 28
PIXELS = SIDE * SIDE


class Encoder(keras.layers.Layer):
    """q(z | x): images to the mean and log-variance of a diagonal Gaussian (paper, eq. 9).

    Args:
        hidden_units: widths of the hidden layers, from the image inwards.
        latent_dim: size of z.
        activation: of the hidden layers, a Keras name.
    """

    def __init__(self, hidden_units, latent_dim, activation, name="encoder"):
        super().__init__(name=name)
        self.hidden = _hidden_layers(hidden_units, activation, PIXELS)
        # One product for both heads: half the calls, the same numbers.
        self.head = _dense(2 * latent_dim, hidden_units[-1], name="mu_and_log_var")

    def call(self, images):
        """Returns `mu`, `log_var`, each (n, latent_dim), for images (n, 784) in [0, 1]."""
        hidden = images
        for layer in self.hidden:
            hidden = layer(hidden)
        return tf.split(self.head(hidden), 2, axis=-1)


class Decoder(keras.layers.Layer):
    """p(x | z): the encoder's mirror, from z to the logits of the pixels.

    Args: as `Encoder`; `hidden_units` too are given from the image inwards.
    """

    def __init__(self, hidden_units, latent_dim, activation, name="decoder"):
        super().__init__(name=name)
        self.latent_dim = latent_dim
        outwards = tuple(reversed(hidden_units))
        self.hidden = _hidden_layers(outwards, activation, latent_dim)
        self.head = _dense(PIXELS, outwards[-1], name="logits")

    def call(self, z):
        """Returns logits (n, 784) for z (n, latent_dim)."""
        hidden = z
        for layer in self.hidden:
            hidden = layer(hidden)
        return self.head(hidden)


class VAE(keras.Model):
    """Encoder and decoder as one model.

    Args: as `Encoder`.
    """

    def __init__(self, hidden_units=(512, 256), latent_dim=128, activation="silu"):
        super().__init__(name="vae")
        self.encoder = Encoder(hidden_units, latent_dim, activation)
        self.decoder = Decoder(hidden_units, latent_dim, activation)
        # Sub-layers are built; this only tells Keras so, without tracing a call.
        self.built = self.encoder.built = self.decoder.built = True

    def encode(self, images):
        """Returns `mu`, `log_var`, each (n, latent_dim), for images (n, 784) in [0, 1]."""
        return self.encoder(images)

    def reparameterize(self, mu, log_var, noise):
        """Returns z = mu + exp(log_var / 2) * noise (paper, eq. 10); all (n, latent_dim)."""
        return reparameterize(mu, log_var, noise)

    def decode(self, z):
        """Returns logits (n, 784) for z (n, latent_dim)."""
        return self.decoder(z)

    def call(self, images, noise):
        """Returns `mu`, `log_var`, `logits` for images (n, 784) and noise (n, latent_dim).

        With noise (k, n, latent_dim) the logits are those of k draws of z, (k, n, 784).
        """
        mu, log_var = self.encode(images)
        return mu, log_var, self.decode(self.reparameterize(mu, log_var, noise))


class DecoderOnly(keras.Model):
    """A container that loads only the decoder from a whole model's weights file."""

    def __init__(self, hidden_units, latent_dim, activation):
        super().__init__(name="vae")
        self.decoder = Decoder(hidden_units, latent_dim, activation)
        self.built = self.decoder.built = True

    def call(self, z):
        """Returns logits (n, 784) for z (n, latent_dim)."""
        return self.decoder(z)


def _hidden_layers(widths, activation, inputs):
    layers = []
    for index, width in enumerate(widths):
        # Keras writes names into the weights file: counted ones would change its hash.
        layers.append(_dense(width, inputs, activation, name=f"hidden_{index}"))
        inputs = width
    return layers


def _dense(width, inputs, activation=None, name=None):
    layer = keras.layers.Dense(width, activation, name=name)
    layer.build((None, inputs))
    return layer


def weight_count(hidden_units, latent_dim):
    """Returns how many numbers the weights of a `VAE` are, without building one."""
    inwards = [PIXELS, *hidden_units, 2 * latent_dim]
    outwards = [latent_dim, *reversed(hidden_units), PIXELS]
    return sum(
        (inputs + 1) * outputs
        for widths in (inwards, outwards)
        for inputs, outputs in itertools.pairwise(widths)
    )


def reparameterize(mu, log_var, noise):
    """z of q(z | x): mu + exp(log_var / 2) * noise (paper, eq. 10)."""
    return mu + tf.exp(0.5 * log_var) * noise


def loss_bce(images, logits):
    """Binary cross-entropy of each image, nats, summed over pixels.

    The negative log-likelihood of a Bernoulli decoder (paper, appendix C.1) where images are
    binary; for grey images in [0, 1] the same expression, which is what this kind of repository
    trains and reports.

    Args:
        images: (n, 784) in [0, 1].
        logits: (n, 784), or (k, n, 784) for k draws of z.

    Returns:
        (n,), or (k, n)
    """
    images = tf.broadcast_to(images, tf.shape(logits))
    return tf.reduce_sum(
        tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits), axis=-1
    )


def loss_KLD(mu, log_var):
    """KL(q(z | x) || N(0, I)) of each image, nats, summed over latent dimensions.

    1/2 sum(exp(log_var) + mu^2 - log_var - 1): the paper's appendix B with the sign of a loss.

    Args:
        mu, log_var: (n, latent_dim).

    Returns:
        (n,)
    """
    return tf.reduce_sum(kld_per_unit(mu, log_var), axis=-1)


def kld_per_unit(mu, log_var):
    """The same before the sum: nats of each image and latent dimension, (n, latent_dim)."""
    return 0.5 * (tf.exp(log_var) + tf.square(mu) - log_var - 1.0)


def loss_l2(images, logits):
    """Euclidean norm of sigmoid(logits) - images, in units of grey; shapes as `loss_bce`."""
    return tf.sqrt(tf.reduce_sum(tf.square(tf.sigmoid(logits) - images), axis=-1))


def rmse(l2):
    """Root mean square over the pixels of each image from its `loss_l2`; the shape stays."""
    return l2 / PIXELS**0.5


def loss_gaussian(l2, variance):
    """Negative log-likelihood of each image under a Gaussian decoder, nats, summed over pixels.

    The mean is sigmoid(logits), the variance one number for all pixels (Rybkin, Daniilidis and
    Levine, "Simple and Effective VAE Training with Calibrated Decoders", 2021, eq. 5). A density:
    it may be negative, and compares with no `loss_bce`.

    Args:
        l2: `loss_l2`, any shape.
        variance: of a pixel, grey squared; `optimal_variance` makes the mean smallest.

    Returns:
        The shape of `l2`.
    """
    variance = tf.convert_to_tensor(variance, l2.dtype)
    return PIXELS / 2 * tf.math.log(2 * math.pi * variance) + tf.square(l2) / (2 * variance)


def optimal_variance(l2):
    """The one variance that makes the mean of `loss_gaussian` smallest (same paper, eq. 6).

    Args:
        l2: `loss_l2` of every image that shares the variance.

    Returns:
        A scalar, the mean square over images and pixels, in grey squared.
    """
    return tf.reduce_mean(tf.square(l2)) / PIXELS


def log_weights(bce, mu, log_var, noise):
    """log p(x, z) - log q(z | x) of sampled z: what importance sampling averages.

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, eq. 7. The mean
    over z is the ELBO of each image.

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


def loss_importance(weights):
    """The negative of the k-sample bound on log p(x) (same paper, eq. 8); k = 1: the -ELBO.

    Args:
        weights: `log_weights`, (k, n).

    Returns:
        (n,), nats.
    """
    return math.log(weights.shape[0]) - tf.reduce_logsumexp(weights, axis=0)


def loss_terms(images, mu, log_var, logits):
    """The terms that every script reports, for each image.

    Args:
        images: (n, 784) in [0, 1].
        mu, log_var: (n, latent_dim).
        logits: (n, 784) of a sampled z, or (k, n, 784) of k of them.

    Returns:
        dict of (n,) or (k, n): `loss_total` (= -ELBO), `loss_bce`, `loss_KLD`, `loss_l2`, `RMSE`.
    """
    bce, l2 = loss_bce(images, logits), loss_l2(images, logits)
    kld = tf.broadcast_to(loss_KLD(mu, log_var), tf.shape(bce))
    return {
        "loss_total": bce + kld,
        "loss_bce": bce,
        "loss_KLD": kld,
        "loss_l2": l2,
        "RMSE": rmse(l2),
    }


def objective(terms, recon_loss="bce", beta=1.0, variance=None):
    """What is minimized: reconstruction + beta * `loss_KLD`, or the importance-weighted bound.

    Args:
        terms: dict of (n,) or (k, n) as `loss_terms` returns them; where it has
            `loss_importance`, that is the whole objective.
        recon_loss: `bce` (the Bernoulli model), `gaussian` (the Gaussian model, at its optimal
            variance) or `l2` (the norm itself, no likelihood).
        beta: weight of the KL term (Higgins et al. 2017, eq. 4); 1 with bce is the -ELBO.
        variance: of the Gaussian model, where `terms` are of a part of the images that share it;
            None: the `optimal_variance` of `terms`.

    Returns:
        A scalar, the mean over images.
    """
    if "loss_importance" in terms:
        return tf.reduce_mean(terms["loss_importance"])
    if recon_loss == "gaussian":
        # At the optimum the objective is flat in the variance: the gradient may pass it by.
        if variance is None:
            variance = tf.stop_gradient(optimal_variance(terms["loss_l2"]))
        recon = loss_gaussian(terms["loss_l2"], variance)
    else:
        recon = terms[f"loss_{recon_loss}"]
    return tf.reduce_mean(recon) + beta * tf.reduce_mean(terms["loss_KLD"])
