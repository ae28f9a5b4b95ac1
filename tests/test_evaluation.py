"""support/evaluation.py: nll against an integral under both priors, figures whatever the batch."""

import keras
import numpy as np
import pytest

import data
import model
from support import evaluation, prior

IMAGES = data.load("digits").train.images[:90]


@pytest.fixture
def vae():
    keras.utils.set_random_seed(5)
    return model.VAE((24, 12), 6, "silu")


def test_evaluation_does_not_depend_on_batch(vae):
    by_one, by_all = (evaluation.evaluator(vae, 0, batch)(IMAGES) for batch in (7, 1000))
    for name in by_one:
        np.testing.assert_allclose(by_one[name], by_all[name], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(
        by_one["loss_total"], by_one["loss_bce"] + by_one["loss_KLD"], rtol=1e-6
    )


@pytest.mark.parametrize("latent_dim", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nll_is_the_integral_over_the_latent(latent_dim):
    """Against a grid over z that knows nothing of q, for weights with a likelihood to speak of;
    under N(0, I) and under a mixture."""
    keras.utils.set_random_seed(3)
    vae = model.VAE((16,), latent_dim, "tanh")
    for weight in vae.decoder.trainable_variables:
        weight.assign(2.0 * weight)
    images = evaluation.binarized(IMAGES[:20], 0)
    per_side = 4001 if latent_dim == 1 else 201
    axis = np.linspace(-8, 8, per_side, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[axis] * latent_dim), -1).reshape(-1, latent_dim)
    logits = vae.decode(grid).numpy().astype(float)
    log_px = images / 255 @ logits.T - np.logaddexp(0, logits).sum(1)
    log_pz = -0.5 * (grid.astype(float) ** 2 + np.log(2 * np.pi)).sum(1)
    # Two components, at 0.5 and -1 in every dimension, of variances 0.5 and 0.3.
    variances, means = np.array([0.5, 0.3]), np.array([0.5, -1.0])
    arrays = {
        "active": np.arange(latent_dim),
        "labels": np.array([0, 1], np.uint8),
        "weights": np.array([0.25, 0.75]),
        "means": np.tile(means[:, None], latent_dim),
        "covariances": variances[:, None, None] * np.eye(latent_dim),
    }
    parts = [
        np.log(weight) - 0.5 * ((grid - mean) ** 2 / var + np.log(2 * np.pi * var)).sum(1)
        for weight, mean, var in zip(arrays["weights"], means, variances, strict=True)
    ]
    fitted = prior.Mixture(arrays)
    found = [evaluation.nll(vae, images, 2000, seed, fitted) for seed in range(8)]
    bounds = [evaluation.evaluator(vae, seed, fitted=fitted)(images) for seed in range(8)]
    cell = (axis[1] - axis[0]) ** latent_dim
    for nll, bound, log_prior in (
        ("nll", "loss_total", log_pz),
        ("nll_fitted", "loss_total_fitted", np.logaddexp(*parts)),
    ):
        exact = -np.logaddexp.reduce(log_px + log_prior, axis=1) - np.log(cell)
        runs = np.stack([figures[nll] for figures in found])
        error = runs.std(0, ddof=1).mean() / 8**0.5
        assert error < 0.05  # the check below is worth something
        assert abs((runs.mean(0) - exact).mean()) < 5 * error / 20**0.5 + 1e-3
        # Which the bound alone would not pass.
        assert np.mean([figures[bound] for figures in bounds]) > exact.mean() + 0.3


def test_nll_is_the_same_for_any_chunk_and_the_share_done_grows(vae):
    images, shares = evaluation.binarized(IMAGES, 1), []
    whole = evaluation.nll(vae, images, 23, 0, done=shares.append)["nll"]
    assert shares == sorted(shares) and shares[-1] == 1
    for chunk in (1, 4, 23):
        found = evaluation.nll(vae, images, 23, 0, chunk=chunk)
        np.testing.assert_array_equal(found["nll"], whole)
    assert not (evaluation.nll(vae, images, 23, 1)["nll"] == whole).any()


def test_binarized_draws_have_the_grey_value_as_mean():
    images = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 4000))
    drawn = evaluation.binarized(images, 0)
    assert set(np.unique(drawn)) == {0, 255}
    assert (drawn[0] == 0).all() and (drawn[255] == 255).all()
    # Six standard errors of a share.
    assert np.abs(drawn.mean(1) / 255 - np.arange(256) / 255).max() < 6 * 0.5 / 4000**0.5
    np.testing.assert_array_equal(evaluation.binarized(drawn, 7), drawn)


def test_posterior_is_the_moments_of_mu(vae):
    mu, log_var = (part.numpy().astype(float) for part in vae.encode(IMAGES / np.float32(255)))
    found = evaluation.posterior(*evaluation.encoded(vae, IMAGES, batch=7))
    np.testing.assert_allclose(found["mu_mean"], mu.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["mu_std"], mu.std(0), rtol=1e-3, atol=1e-6)
    kld = 0.5 * (np.exp(log_var) + mu**2 - log_var - 1).mean(0)
    np.testing.assert_allclose(found["KLD"], kld, rtol=1e-3, atol=1e-6)
