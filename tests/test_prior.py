"""support/prior.py: its density and its draws against SciPy and closed forms, what it refuses."""

import io
import re

import numpy as np
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from support import UserError, prior

LATENT_DIM, ACTIVE = 5, [1, 3, 4]


@pytest.fixture
def arrays():
    """Four components on three of five dimensions, of the digits 2 and 7."""
    random = np.random.default_rng(0)
    roots = random.normal(size=(4, 3, 3))
    return {
        "active": np.array(ACTIVE),
        "labels": np.array([2, 7, 7, 7], np.uint8),
        "weights": np.array([0.25, 0.5, 0.125, 0.125]),
        "means": random.normal(size=(4, 3)),
        "covariances": roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(3),
    }


def densities(arrays, z):
    """log of weight * N(z; mean, covariance) of each component, by SciPy: (n, M)."""
    parts = zip(arrays["weights"], arrays["means"], arrays["covariances"], strict=True)
    return np.stack(
        [np.log(w) + stats.multivariate_normal(m, c).logpdf(z[:, ACTIVE]) for w, m, c in parts], 1
    )


def test_the_density_is_scipys_beside_that_of_the_standard_normal(arrays):
    z = np.random.default_rng(1).normal(size=(50, LATENT_DIM)).astype(np.float32)
    logs, mixture = densities(arrays, z), prior.Mixture(arrays)
    standard = stats.norm.logpdf(z[:, ACTIVE]).sum(1)
    expected = np.log(np.stack([np.exp(logs[:, :1]).sum(1), np.exp(logs[:, 1:]).sum(1)], 1))
    found = mixture.log_ratios(z)
    np.testing.assert_allclose(found, expected - standard[:, None], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        mixture.log_ratio(z), np.log(np.exp(expected).sum(1)) - standard, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(mixture.named(z), np.where(expected.argmax(1), 7, 2))


@pytest.mark.parametrize("digit, chosen", [(None, slice(0, 4)), (7, slice(1, 4)), (2, [0])])
def test_draws_have_the_moments_of_the_mixture(arrays, digit, chosen):
    n, random = 200_000, np.random.default_rng(2)
    noise = random.standard_normal((n, LATENT_DIM), np.float32)
    uniform = random.random(n, np.float32)
    digits = None if digit is None else np.full(n, digit)
    z = prior.Mixture(arrays).draw(noise, uniform, digits).numpy()
    # What holds nothing keeps its noise.
    np.testing.assert_array_equal(z[:, [0, 2]], noise[:, [0, 2]])
    weights = arrays["weights"][chosen] / arrays["weights"][chosen].sum()
    means, covariances = arrays["means"][chosen], arrays["covariances"][chosen]
    mean = weights @ means
    between = np.einsum("m,mi,mj->ij", weights, means - mean, means - mean)
    covariance = np.einsum("m,mij->ij", weights, covariances) + between
    error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(z[:, ACTIVE].mean(0) - mean) < 6 * error).all()
    np.testing.assert_allclose(np.cov(z[:, ACTIVE].T), covariance, rtol=0.05, atol=0.05)


def test_a_draw_depends_on_its_own_noise_alone(arrays):
    random = np.random.default_rng(3)
    noise, uniform = random.standard_normal((9, LATENT_DIM), np.float32), random.random(9)
    uniform = uniform.astype(np.float32)
    mixture = prior.Mixture(arrays)
    some = mixture.draw(noise[4:6], uniform[4:6])
    np.testing.assert_array_equal(mixture.draw(noise, uniform)[4:6], some)


def posterior_of(count, seed, spread=0.1):
    """Images of two digits, each in a place of its own on two of three dimensions."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 2
    mu = np.zeros((count, 3), np.float32)
    mu[:, :2] = 2.0 * labels[:, None] - 1 + spread * random.standard_normal((count, 2))
    return mu, np.full((count, 3), -4, np.float32), labels


def test_the_fit_gains_over_the_standard_normal_and_names_digits():
    *known, labels = posterior_of(2000, 0)
    *other, their_labels = posterior_of(500, 1)
    arrays, told = prior.fit(known, labels, other, seed=0)
    z = other[0]
    assert told["why"] == "" and told["gain"] > 1
    np.testing.assert_array_equal(prior.Mixture(arrays).named(z), their_labels)
    np.testing.assert_allclose(arrays["weights"][arrays["labels"] == 1].sum(), 0.5)


def test_the_fit_has_the_same_bits_for_any_number_of_threads():
    random = np.random.default_rng(0)
    known = random.standard_normal((2, 4000, 24), np.float32)
    known[0] = known[0] @ random.standard_normal((24, 24), np.float32)
    labels, other = np.zeros(4000, np.uint8), known[:, :200]
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(prior.fit(known, labels, other, seed=3)[0])
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name])


def test_where_the_standard_normal_is_as_good_it_stays():
    mu, log_var, labels = posterior_of(40, 0)
    for far in ((1e4 * mu, log_var), (mu, log_var + 400)):
        with np.errstate(over="ignore"):
            arrays, told = prior.fit(far, labels, far, 0)
        assert arrays is None and "reaches beyond" in told["why"]
    shut = (0 * mu, 0 * log_var)
    assert "active" in prior.fit(shut, labels, shut, 0)[1]["why"]
    labels[:] = 0
    labels[3] = 5
    assert "label 5" in prior.fit((mu, log_var), labels, (mu, log_var), 0)[1]["why"]
    random = np.random.default_rng(0)
    normal = random.standard_normal((2, 30, 3), np.float32)
    normal[1] = -20
    other = random.standard_normal((2, 3000, 3), np.float32)
    other[1] = -20
    arrays, told = prior.fit(normal, np.zeros(30, np.uint8), other, 0)
    assert arrays is None and told["gain"] < 0 and "as good" in told["why"]


def changed(**arrays):
    return lambda good: good | {name: change(good[name]) for name, change in arrays.items()}


BAD = {
    "a missing array": lambda good: {k: v for k, v in good.items() if k != "means"},
    "one more": lambda good: good | {"more": np.zeros(1)},
    "objects": changed(means=lambda a: a.astype(object)),
    "float32": changed(means=lambda a: a.astype(np.float32)),
    "another rank": changed(covariances=lambda a: a[0]),
    "fewer means": changed(means=lambda a: a[1:]),
    "no component": lambda good: {k: v[:0] if k != "active" else v for k, v in good.items()},
    "a dimension too far": changed(active=lambda a: a + 1),
    "dimensions out of order": changed(active=lambda a: a[::-1].copy()),
    "labels out of order": changed(labels=lambda a: a[::-1].copy()),
    "NaN": changed(means=lambda a: a * np.nan),
    "huge": changed(means=lambda a: a * 1e300),
    "weights that do not sum to 1": changed(weights=lambda a: a / 2),
    "a negative weight": changed(weights=lambda a: a * [1, 2, -1, -1]),
    "not symmetric": changed(covariances=lambda a: a + np.triu(np.ones((3, 3)), 1)),
    "not positive definite": changed(covariances=lambda a: -a),
    "next to nothing": changed(covariances=lambda a: 1e-90 * a),
}


def saved(arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    content.seek(0)
    return content


@pytest.mark.parametrize("name", BAD)
def test_a_bad_prior_is_one_line(arrays, name):
    good = prior.read(saved(arrays), "prior.npz", LATENT_DIM)
    for key, array in arrays.items():
        np.testing.assert_array_equal(good[key], array)
    with pytest.raises(UserError) as error:
        prior.read(saved(BAD[name](arrays)), "prior.npz", LATENT_DIM)
    assert re.match("prior.npz.* is damaged or not what it should be", str(error.value))
