"""support/analysis/metrics.py: every metric, recomputed in NumPy, for any batch size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import data
import model
from support import noise
from support.analysis import metrics
from support.analysis.fitted_prior import Mixture, PriorArrays

IMAGES = data.load("digits").train.images[:90]
X = IMAGES / np.float32(255)


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(5)
    vae = model.VAE((24, 12), 6, "silu")
    # With the initial weights, mu is almost 0.
    for kernel in vae.encoder.trainable_variables[::2]:
        kernel.assign(2.0 * kernel)
    return vae


@pytest.fixture(scope="module")
def mixture(vae):
    mu = vae.encode(X)[0].numpy()
    return Mixture(
        PriorArrays(
            active=np.array([0, 3]),
            labels=np.array([4, 9], np.uint8),
            weights=np.array([0.4, 0.6]),
            means=np.quantile(mu[:, [0, 3]], [0.2, 0.8], axis=0).astype(float),
            covariances=np.stack([0.5 * np.eye(2), 0.4 * np.eye(2)]),
        )
    )


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.numpy().astype(float)))


def test_figures_do_not_depend_on_the_batch(vae, mixture):
    by_seven, by_all = (metrics.Evaluator(vae, 0, batch, mixture)(IMAGES) for batch in (7, 1000))
    assert by_seven.values.keys() == by_all.values.keys()
    for name, values in by_seven.values.items():
        np.testing.assert_allclose(values, by_all.values[name], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(by_seven.mu, by_all.mu, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(by_seven.predicted_label, by_all.predicted_label)


def test_figures_are_those_of_numpy_for_z_of_the_seed(vae):
    found = metrics.Evaluator(vae, 3)(IMAGES)
    mu, log_var = (part.numpy() for part in vae.encode(X))
    drawn = noise.normal([90, 6], 3, noise.EVALUATION, 0).numpy()
    pixels = sigmoid(vae.decode(mu + np.exp(log_var / 2) * drawn))
    bce = -(X * np.log(pixels) + (1 - X) * np.log(1 - pixels)).sum(1)
    kld = 0.5 * (np.exp(log_var) + mu**2 - log_var - 1).sum(1)
    expected = {
        "loss_total": bce + kld,
        "loss_bce": bce,
        "loss_KLD": kld,
        "loss_l2": np.linalg.norm(pixels - X, axis=1),
        "RMSE": np.sqrt(np.mean((pixels - X) ** 2, axis=1)),
        "RMSE_mean": np.sqrt(np.mean((sigmoid(vae.decode(mu)) - X) ** 2, axis=1)),
    }
    assert found.values.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found.values[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(found.mu, mu, rtol=1e-5, atol=1e-6)
    assert found.predicted_label is None and found.probability is None
    assert (metrics.Evaluator(vae, 4)(IMAGES).values["loss_bce"] != found.values["loss_bce"]).all()


def test_figures_under_the_fitted_prior(vae, mixture):
    from scipy import stats

    without = metrics.Evaluator(vae, 3)(IMAGES)
    found = metrics.Evaluator(vae, 3, prior=mixture)(IMAGES)
    mu, log_var = (part.numpy().astype(float) for part in vae.encode(X))
    z = mu + np.exp(log_var / 2) * noise.normal([90, 6], 3, noise.EVALUATION, 0).numpy()

    def densities(places):
        parts = zip((0.4, 0.6), mixture.components, strict=True)
        return np.stack(
            [
                weight * stats.multivariate_normal(one.mean, one.covariance).pdf(places[:, [0, 3]])
                for weight, one in parts
            ],
            axis=1,
        )

    gain = np.log(densities(z).sum(1)) - stats.norm.logpdf(z[:, [0, 3]]).sum(1)
    np.testing.assert_allclose(
        found.values["loss_total_fitted"], without.values["loss_total"] - gain, rtol=1e-4
    )
    by_class = densities(mu)
    np.testing.assert_array_equal(found.predicted_label, np.array([4, 9])[by_class.argmax(1)])
    assert set(found.predicted_label) == {4, 9}
    np.testing.assert_allclose(found.probability, by_class.max(1) / by_class.sum(1), rtol=1e-3)


def test_means_and_standard_errors_by_hand():
    figures = metrics.Figures({"a": np.array([1.0, 2.0, 6.0], np.float32)}, *np.zeros((2, 3, 1)))
    assert figures.means() == {"a": 3.0}
    # The deviations are -2, -1 and 3, so the variance is 14 / 2, over three images.
    assert figures.standard_errors() == {"a": pytest.approx((7 / 3) ** 0.5)}


def test_a_standard_error_is_the_deviation_of_the_mean():
    """The deviation is measured over many random data sets."""
    drawn = np.random.default_rng(0).normal(5, 2, (4000, 50))
    means = drawn.mean(axis=1)
    errors = [
        metrics.Figures({"a": row}, *np.zeros((2, 50, 1))).standard_errors()["a"]
        for row in drawn[:400]
    ]
    assert np.mean(errors) == pytest.approx(means.std(), rel=0.05)


def test_means_are_taken_in_float64():
    values = np.full(3_000_000, 100.1, np.float32)
    found = metrics.Figures({"a": values}, *np.zeros((2, 1, 1))).means()["a"]
    assert found == pytest.approx(float(np.float32(100.1)), rel=1e-9)


def test_a_model_of_binary_images_is_evaluated_on_one_fixed_sample():
    np.testing.assert_array_equal(noise.evaluation_images(IMAGES, False, 3), IMAGES)
    sample = noise.evaluation_images(IMAGES, True, 3)
    np.testing.assert_array_equal(sample, noise.bernoulli_sample(IMAGES, 3))
    assert (sample != noise.evaluation_images(IMAGES, True, 4)).any()


def test_logits_become_the_nearest_grey_value():
    logits = tf.constant([[-40.0, 0.0, 40.0, np.log(1 / 254), np.log(1 / 509)]])
    # 255 sigmoid: 0, 127.5 (rounded to even), 255, 1, 0.5 (rounded to even).
    assert metrics.to_uint8(logits).numpy().tolist() == [[0, 128, 255, 1, 0]]
    assert metrics.to_uint8(logits).dtype == tf.uint8


def test_the_posterior_is_the_moments_of_mu_and_the_kl_of_each_unit(vae):
    mu, log_var = (part.numpy().astype(float) for part in vae.encode(X))
    encoded = metrics.encode(vae, IMAGES, batch=7)
    assert [part.shape for part in encoded] == [(90, 6), (90, 6)]
    found = metrics.posterior(*encoded)
    np.testing.assert_allclose(found.mu_mean, mu.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.mu_std, mu.std(0), rtol=1e-3, atol=1e-6)
    kld = 0.5 * (np.exp(log_var) + mu**2 - log_var - 1).mean(0)
    np.testing.assert_allclose(found.KLD, kld, rtol=1e-3, atol=1e-6)
    assert all(type(value) is float for column in found for value in column)


@pytest.mark.parametrize("recon_loss, beta", [("bce", 1.0), ("bce", 0.3), ("l2", 2.0)])
def test_a_point_of_the_validation_curves(vae, recon_loss, beta):
    """The objective is that of training, with its reconstruction loss and its beta."""
    figures = metrics.Evaluator(vae, 0)(IMAGES)
    point = metrics.curve_point(figures, recon_loss, beta)
    assert point.keys() == {*model.TERMS, "objective", "active_units"}
    for name in model.TERMS:
        assert point[name] == pytest.approx(figures.values[name].mean(), rel=1e-5)
    expected = point[f"loss_{recon_loss}"] + beta * point["loss_KLD"]
    assert point["objective"] == pytest.approx(expected, rel=1e-5)
    assert point["active_units"] == np.sum(figures.mu.var(axis=0) > 0.01)


def test_pictures_show_each_row_of_images_above_their_reconstructions(vae):
    found = metrics.pictures(vae, IMAGES, seed=1)
    pairs, samples = found["reconstructions"], found["prior_samples"]
    assert pairs.shape == (8, 10, 784) and samples.shape == (4, 10, 784)
    np.testing.assert_array_equal(pairs[::2].reshape(40, 784), IMAGES[:40])
    reconstructed = np.rint(255 * sigmoid(vae.decode(vae.encode(X[:40])[0])))
    assert np.abs(pairs[1::2].reshape(40, 784) - reconstructed).max() <= 1
    z = noise.normal([40, 6], 1, noise.GENERATION, 0)
    expected = np.rint(255 * sigmoid(vae.decode(z)))
    assert np.abs(samples.reshape(40, 784) - expected).max() <= 1


def test_pictures_of_few_images_are_smaller(vae):
    found = metrics.pictures(vae, IMAGES[:7], seed=1)
    assert found["reconstructions"].shape == (2, 7, 784)
    assert metrics.pictures(vae, IMAGES[:25], 1)["prior_samples"].shape == (2, 10, 784)
