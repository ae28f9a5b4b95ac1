"""model.py: the loss against other computations, gradients, shapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

import model
import train
from support import weights, window


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


def test_kl_is_the_integral_of_its_definition():
    mu, log_var = [0.3, -1.2, 2.0], [-0.5, 0.7, -3.0]

    def integrand(z, q):
        return q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z))

    expected = sum(
        integrate.quad(integrand, m - 12 * s, m + 12 * s, args=(stats.norm(m, s),), points=[m])[0]
        for m, s in zip(mu, np.exp(np.array(log_var) / 2), strict=True)
    )
    computed = model.loss_KLD(tf.constant([mu], tf.float64), tf.constant([log_var], tf.float64))
    assert computed.numpy()[0] == pytest.approx(expected, rel=1e-8)


def test_bce_is_the_bernoulli_log_likelihood_and_finite_at_the_extremes():
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (5, 784))
    binary = random.integers(0, 2, (5, 784))
    expected = -stats.bernoulli.logpmf(binary, 1 / (1 + np.exp(-logits))).sum(axis=1)
    computed = model.loss_bce(tf.constant(binary, tf.float64), tf.constant(logits))
    np.testing.assert_allclose(computed, expected, rtol=1e-9)
    grey = random.random((5, 784))
    p = 1 / (1 + np.exp(-logits))
    expected = -(grey * np.log(p) + (1 - grey) * np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(model.loss_bce(grey, tf.constant(logits)), expected, rtol=1e-9)
    extreme = model.loss_bce(np.ones((1, 784), "float32"), tf.fill([1, 784], -1e4))
    np.testing.assert_allclose(extreme, [784e4], rtol=1e-5)


def test_l2_and_rmse_by_hand():
    images = np.zeros((2, 784), "float32")
    logits = tf.zeros([2, 784])  # every pixel 0.5 off
    np.testing.assert_allclose(model.loss_l2(images, logits), [14.0, 14.0], rtol=1e-6)
    np.testing.assert_allclose(model.rmse(model.loss_l2(images, logits)), [0.5, 0.5], rtol=1e-6)


def test_importance_weights_are_the_densities_they_are_named_after():
    random = np.random.default_rng(4)
    mu, log_var = random.normal(size=(2, 5, 3))
    noise = random.normal(size=(4, 5, 3))
    bce = random.random((4, 5))
    deviation = np.exp(log_var / 2)
    z = mu + deviation * noise
    prior = stats.norm.logpdf(z).sum(-1)
    expected = -bce + prior - stats.norm.logpdf(z, mu, deviation).sum(-1)
    computed = model.log_weights(*map(tf.constant, (bce, mu, log_var, noise)))
    np.testing.assert_allclose(computed, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "recon_loss, beta, samples", [("bce", 1.0, 1), ("bce", 0.3, 1), ("l2", 1.0, 1), ("bce", 1.0, 2)]
)
def test_gradients_agree_with_finite_differences(float64, recon_loss, beta, samples):
    """Along a random direction in all weights, through the reparameterization."""
    keras.utils.set_random_seed(1)
    vae = model.VAE((7, 5), 3, "silu")
    random = np.random.default_rng(2)
    images = tf.constant(random.random((4, 784)))
    noise = tf.constant(random.normal(size=(4, 3) if samples == 1 else (samples, 4, 3)))
    _, grads = train.loss_and_gradients(vae, images, noise, recon_loss, beta)
    start = [variable.numpy() for variable in vae.trainable_variables]
    direction = [random.normal(size=value.shape) for value in start]
    step = 1e-6

    def objective_at(distance):
        for variable, value, d in zip(vae.trainable_variables, start, direction, strict=True):
            variable.assign(value + distance * d)
        terms, _ = train.loss_and_gradients(vae, images, noise, recon_loss, beta)
        return float(terms["objective"])

    numeric = (objective_at(step) - objective_at(-step)) / (2 * step)
    analytic = sum(float(np.sum(g * d)) for g, d in zip(grads, direction, strict=True))
    assert analytic == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("hidden, latent, batch", [((9,), 1, 1), ((33, 17, 5), 7, 3)])
def test_shapes_for_odd_sizes(hidden, latent, batch):
    vae = model.VAE(hidden, latent, "tanh")
    mu, log_var = vae.encode(tf.zeros([batch, 784]))
    assert mu.shape == log_var.shape == (batch, latent)
    assert vae.decode(mu).shape == (batch, 784)
    assert vae.decode(tf.zeros([2, batch, latent])).shape == (2, batch, 784)
    expected = weights.shapes({"hidden_units": list(hidden), "latent_dim": latent})
    shapes = [shape for part in expected.values() for _, shape in part]
    assert [tuple(v.shape) for v in vae.trainable_variables] == shapes


def test_the_keras_model_is_the_same_network():
    keras.utils.set_random_seed(4)
    vae = model.VAE((9, 7), 3)
    images = np.random.default_rng(0).random((5, 784), np.float32)
    found = vae.as_keras_model()(images)
    mu, log_var = vae.encode(images)
    np.testing.assert_allclose(found["mu"], mu, rtol=1e-6)
    np.testing.assert_allclose(found["log_var"], log_var, rtol=1e-6)
    np.testing.assert_allclose(found["logits"], vae.decode(mu), rtol=1e-5, atol=1e-6)


def test_reparameterized_z_has_the_mean_and_deviation_of_q():
    noise = window.normal([200_000, 2], 3, window.TRAIN_STREAM, 0)
    z = model.reparameterize(tf.constant([[1.0, -2.0]]), tf.constant([[0.0, np.log(9.0)]]), noise)
    # Five standard errors of the mean, and of the deviation.
    assert np.abs(z.numpy().mean(0) - [1, -2]).max() < 5 * 3 / 200_000**0.5
    np.testing.assert_allclose(z.numpy().std(0), [1, 3], rtol=5 / (2 * 200_000) ** 0.5)
