"""support/analysis/likelihood.py: nll against an integral over z that does not use q."""

import keras
import numpy as np
import pytest

import data
import model
from support import noise
from support.analysis import likelihood, metrics
from support.analysis.fitted_prior import Mixture, PriorArrays

IMAGES = data.load("digits").train.images[:90]


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(5)
    return model.VAE((24, 12), 6, "silu")


def mixture_of_two(latent_dim):
    """Two components with means 0.5 and -1 in every dimension, and variances 0.5 and 0.3."""
    variances, means, weights = np.array([0.5, 0.3]), np.array([0.5, -1.0]), np.array([0.25, 0.75])
    arrays = PriorArrays(
        active=np.arange(latent_dim),
        labels=np.array([0, 1], np.uint8),
        weights=weights,
        means=np.tile(means[:, None], latent_dim),
        covariances=variances[:, None, None] * np.eye(latent_dim),
    )

    def log_density(z):
        parts = [
            np.log(weight) - 0.5 * ((z - mean) ** 2 / var + np.log(2 * np.pi * var)).sum(1)
            for weight, mean, var in zip(weights, means, variances, strict=True)
        ]
        return np.logaddexp(*parts)

    return Mixture(arrays), log_density


@pytest.mark.parametrize("latent_dim", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nll_is_the_integral_over_the_latent(latent_dim):
    """For weights that are large enough for z to matter; under N(0, I) and under a mixture."""
    keras.utils.set_random_seed(3)
    vae = model.VAE((16,), latent_dim, "tanh")
    for weight in vae.decoder.trainable_variables:
        weight.assign(2.0 * weight)
    images = noise.bernoulli_sample(IMAGES[:20], 0)
    per_side = 4001 if latent_dim == 1 else 201
    axis = np.linspace(-8, 8, per_side, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[axis] * latent_dim), -1).reshape(-1, latent_dim)
    logits = vae.decode(grid).numpy().astype(float)
    log_px = images / 255 @ logits.T - np.logaddexp(0, logits).sum(1)
    log_pz = -0.5 * (grid.astype(float) ** 2 + np.log(2 * np.pi)).sum(1)
    mixture, log_mixture = mixture_of_two(latent_dim)
    found = [likelihood.nll(vae, images, 4000, seed, mixture) for seed in range(4)]
    bounds = [metrics.Evaluator(vae, seed, prior=mixture)(images).values for seed in range(4)]
    cell = (axis[1] - axis[0]) ** latent_dim
    for nll, bound, log_prior in (
        ("nll", "loss_total", log_pz),
        ("nll_fitted", "loss_total_fitted", log_mixture(grid)),
    ):
        exact = -np.logaddexp.reduce(log_px + log_prior, axis=1) - np.log(cell)
        runs = np.stack([figures[nll] for figures in found])
        error = runs.std(0, ddof=1).mean() / 4**0.5
        assert error < 0.05  # otherwise the check below proves little
        assert abs((runs.mean(0) - exact).mean()) < 5 * error / 20**0.5 + 1e-3
        # The bound alone would not pass that check.
        assert np.mean([figures[bound] for figures in bounds]) > exact.mean() + 0.3


def test_one_sample_of_z_gives_the_negative_log_weight_itself(vae):
    """Computed in NumPy: -log p(x | z) - log p(z) + log q(z | x), with all constants."""
    from scipy import stats

    images = noise.bernoulli_sample(IMAGES[:9], 0)
    mixture, log_mixture = mixture_of_two(6)
    found = likelihood.nll(vae, images, 1, 4, mixture)
    x = images / 255
    mu, log_var = (part.numpy().astype(float) for part in vae.encode(x.astype(np.float32)))
    # The noise of sample 0 in block 0.
    drawn = noise.normal([9, 6], 4, noise.IMPORTANCE_SAMPLING, 0).numpy()
    z = mu + np.exp(log_var / 2) * drawn
    logits = vae.decode(z.astype(np.float32)).numpy().astype(float)
    log_px = (x * logits - np.logaddexp(0, logits)).sum(1)
    log_q = stats.norm.logpdf(z, mu, np.exp(log_var / 2)).sum(1)
    np.testing.assert_allclose(
        found["nll"], log_q - log_px - stats.norm.logpdf(z).sum(1), rtol=1e-5
    )
    np.testing.assert_allclose(found["nll_fitted"], log_q - log_px - log_mixture(z), rtol=1e-5)


def test_nll_is_the_same_for_any_chunk_and_the_share_done_grows(vae):
    images, shares = noise.bernoulli_sample(IMAGES, 1), []
    whole = likelihood.nll(vae, images, 23, 0, report_share=shares.append)
    assert list(whole) == ["nll"] and whole["nll"].dtype == np.float64
    assert shares == [pytest.approx(share) for share in (10 / 23, 20 / 23, 1)]
    for chunk in (4, 23):
        found = likelihood.nll(vae, images, 23, 0, chunk=chunk)
        np.testing.assert_array_equal(found["nll"], whole["nll"])
    assert not (likelihood.nll(vae, images, 23, 1)["nll"] == whole["nll"]).any()


def test_images_are_computed_in_blocks_with_noise_of_their_own(vae, monkeypatch):
    images, shares = np.tile(noise.bernoulli_sample(IMAGES[:1], 1), (7, 1)), []
    monkeypatch.setattr(likelihood, "BLOCK", 3)
    found = likelihood.nll(vae, images, 5, 0, report_share=shares.append)["nll"]
    # One image seven times, in three blocks: each copy has its own noise, so its own estimate.
    assert found.shape == (7,) and len(np.unique(found)) == 7
    assert shares == [pytest.approx(share) for share in (3 / 7, 6 / 7, 1)]
    np.testing.assert_array_equal(likelihood.nll(vae, images[:3], 5, 0)["nll"], found[:3])


def test_no_two_blocks_and_samples_share_their_noise():
    """Their numbers are part of the key of the noise, which allows for more blocks than needed."""
    assert likelihood.BLOCK * likelihood.MOST_BLOCKS > 1_000_000
