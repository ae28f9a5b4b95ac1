"""support/analysis/fitted_prior.py: density and samples against SciPy, the fit, what is refused."""

import io
import os
import re

import numpy as np
import pytest
import sklearn.mixture
import tensorflow as tf
from scipy import stats
from threadpoolctl import threadpool_info, threadpool_limits

from support.analysis import fitted_prior
from support.analysis.fitted_prior import Encoded, Mixture, PriorArrays
from support.errors import UserError

LATENT_DIM, ACTIVE = 5, [1, 3, 4]


@pytest.fixture
def arrays():
    """Four components of the digits 2 and 7, on three of five dimensions."""
    random = np.random.default_rng(0)
    roots = random.normal(size=(4, 3, 3))
    return PriorArrays(
        active=np.array(ACTIVE),
        labels=np.array([2, 7, 7, 7], np.uint8),
        weights=np.array([0.25, 0.5, 0.125, 0.125]),
        means=random.normal(size=(4, 3)),
        covariances=roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(3),
    )


def densities(arrays, z):
    """log of weight * N(z; mean, covariance) for each component, from SciPy: (n, M)."""
    parts = zip(arrays.weights, arrays.means, arrays.covariances, strict=True)
    return np.stack(
        [np.log(w) + stats.multivariate_normal(m, c).logpdf(z[:, ACTIVE]) for w, m, c in parts], 1
    )


def test_active_units_are_those_whose_mean_varies():
    """As defined by Burda et al.: the variance of mu over images is above 0.01."""
    random = np.random.default_rng(0)
    mu = random.normal(size=(4000, 5)) * [1.0, 0.0, 0.11, 0.09, 0.3] + [0, 5, 0, 0, -9]
    assert fitted_prior.active_units(mu).tolist() == [0, 2, 4]


def test_the_density_is_scipys_beside_that_of_the_standard_normal(arrays):
    z = np.random.default_rng(1).normal(size=(50, LATENT_DIM)).astype(np.float32)
    logs, mixture = densities(arrays, z), Mixture(arrays)
    standard = stats.norm.logpdf(z[:, ACTIVE]).sum(1)
    expected = np.log(np.stack([np.exp(logs[:, :1]).sum(1), np.exp(logs[:, 1:]).sum(1)], 1))
    found = mixture.log_ratios(z)
    np.testing.assert_allclose(found, expected - standard[:, None], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        mixture.log_ratio(z), np.log(np.exp(expected).sum(1)) - standard, rtol=1e-4, atol=1e-4
    )
    assert mixture.labels.tolist() == [2, 7]
    assert [component.label for component in mixture.components] == [2, 7, 7, 7]
    np.testing.assert_array_equal(mixture.components[1].mean, arrays.means[1])
    np.testing.assert_array_equal(mixture.components[3].covariance, arrays.covariances[3])


def test_the_predicted_label_is_the_most_probable_one_with_its_probability(arrays):
    """By Bayes' rule, with densities from SciPy; labels are returned, not their positions."""
    z = np.random.default_rng(1).normal(size=(200, LATENT_DIM)).astype(np.float32)
    logs = np.exp(densities(arrays, z))
    by_class = np.stack([logs[:, 0], logs[:, 1:].sum(1)], 1)
    labels, probability = Mixture(arrays).classify(z)
    expected = np.array([2, 7])[by_class.argmax(1)]
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(probability, by_class.max(1) / by_class.sum(1), rtol=1e-3)
    assert labels.dtype == tf.uint8 and 20 < np.sum(expected == 2) < 180
    asked = np.resize(np.array([2, 7, 7], np.uint8), len(z))
    of_asked = by_class[np.arange(len(z)), (asked == 7).astype(int)] / by_class.sum(1)
    np.testing.assert_allclose(Mixture(arrays).probability(z, asked), of_asked, rtol=1e-3)


@pytest.mark.parametrize("label, chosen", [(None, slice(0, 4)), (7, slice(1, 4)), (2, [0])])
def test_samples_have_the_moments_of_the_mixture(arrays, label, chosen):
    n, random = 200_000, np.random.default_rng(2)
    noise = random.standard_normal((n, LATENT_DIM), np.float32)
    uniform = random.random(n, np.float32)
    labels = None if label is None else np.full(n, label)
    z = Mixture(arrays).sample(noise, uniform, labels).numpy()
    # Inactive dimensions keep their noise.
    np.testing.assert_array_equal(z[:, [0, 2]], noise[:, [0, 2]])
    weights = arrays.weights[chosen] / arrays.weights[chosen].sum()
    means, covariances = arrays.means[chosen], arrays.covariances[chosen]
    mean = weights @ means
    between = np.einsum("m,mi,mj->ij", weights, means - mean, means - mean)
    covariance = np.einsum("m,mij->ij", weights, covariances) + between
    error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(z[:, ACTIVE].mean(0) - mean) < 6 * error).all()
    np.testing.assert_allclose(np.cov(z[:, ACTIVE].T), covariance, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("label, components", [(2, [0]), (7, [1, 2, 3]), (None, [0, 1, 2, 3])])
def test_the_ends_of_the_uniform_numbers_stay_in_their_class(arrays, label, components):
    """Without noise, a sample is its component's mean: 0 gives the first component, 1 the last."""
    uniform = np.array([0.0, np.nextafter(np.float32(1), np.float32(0)), 1.0], np.float32)
    labels = None if label is None else np.full(3, label)
    z = Mixture(arrays).sample(np.zeros((3, LATENT_DIM), np.float32), uniform, labels).numpy()
    first, last = arrays.means[components[0]], arrays.means[components[-1]]
    np.testing.assert_allclose(z[:, ACTIVE], [first, last, last], rtol=1e-6)


def test_a_sample_depends_on_its_own_noise_alone(arrays):
    random = np.random.default_rng(3)
    noise, uniform = random.standard_normal((9, LATENT_DIM), np.float32), random.random(9)
    uniform = uniform.astype(np.float32)
    mixture = Mixture(arrays)
    some = mixture.sample(noise[4:6], uniform[4:6])
    np.testing.assert_array_equal(mixture.sample(noise, uniform)[4:6], some)


def posterior_of(count, seed, spread=0.1):
    """The posterior of images of two digits, which are apart on two of three dimensions."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 2
    mu = np.zeros((count, 3), np.float32)
    mu[:, :2] = 2.0 * labels[:, None] - 1 + spread * random.standard_normal((count, 2))
    log_var = np.zeros((count, 3), np.float32)
    log_var[:, :2] = -4
    return Encoded(mu, log_var), labels


def test_the_fit_gains_over_the_standard_normal_and_knows_its_classes():
    encoded, labels = posterior_of(2000, 0)
    validation, validation_labels = posterior_of(500, 1)
    arrays, record = fitted_prior.fit(encoded, labels, validation, seed=0)
    assert record.reason == "" and arrays.active.tolist() == [0, 1]
    predicted, _ = Mixture(arrays).classify(validation.mu)
    np.testing.assert_array_equal(predicted, validation_labels)
    np.testing.assert_allclose(arrays.weights[arrays.labels == 1].sum(), 0.5)
    # As accurately as NumPy's `choice` requires.
    assert abs(arrays.weights.sum() - 1) < 1e-14 and len(arrays.weights) == 20
    # About the gain of the best density, where each class, half of the images, is
    # N((+-1, +-1), 0.1^2 + e^-4).
    z = 1 + np.sqrt(0.01 + np.exp(-4)) * np.random.default_rng(0).standard_normal((100_000, 2))
    density = np.log(0.5) + stats.norm(1, np.sqrt(0.01 + np.exp(-4))).logpdf(z).sum(1)
    expected = np.mean(density - stats.norm.logpdf(z).sum(1))
    assert record.gain == pytest.approx(expected, abs=0.15)


def test_the_active_dimensions_may_be_beyond_the_number_of_images():
    encoded, labels = posterior_of(50, 0)
    validation, _ = posterior_of(500, 1)
    wide, wide_validation = (
        Encoded(*(np.pad(array, ((0, 0), (100, 0))) for array in part))
        for part in (encoded, validation)
    )
    arrays, record = fitted_prior.fit(wide, labels, wide_validation, seed=0)
    assert record.reason == "" and arrays.active.tolist() == [100, 101]


def test_without_labels_one_mixture_is_fitted_to_all_images():
    encoded, _ = posterior_of(2000, 0)
    arrays, record = fitted_prior.fit(encoded, None, posterior_of(500, 1)[0], seed=0)
    assert set(arrays.labels) == {0} and record.gain > 1 and len(arrays.weights) == 10
    np.testing.assert_allclose(arrays.weights.sum(), 1)


@pytest.mark.parametrize("images, components", [(59, 1), (60, 2), (290, 9), (2000, 10)])
def test_a_class_has_components_for_which_it_has_images(images, components):
    """It has one for every 10 * (dimensions + 1) images, and at most ten; here with two
    dimensions."""
    encoded, _ = posterior_of(images, 0)
    arrays, _ = fitted_prior.fit(encoded, None, posterior_of(500, 1)[0], seed=0)
    assert len(arrays.weights) == components


def test_the_mixtures_have_the_settings_that_validation_images_chose(monkeypatch):
    """Other settings would pass the other tests, but would change the results on MNIST."""
    settings, mixture = [], sklearn.mixture.GaussianMixture

    def spied(**arguments):
        settings.append(arguments)
        return mixture(**arguments)

    monkeypatch.setattr(sklearn.mixture, "GaussianMixture", spied)
    encoded, _ = posterior_of(60, 0)
    fitted_prior.fit(encoded, None, encoded, seed=7)
    assert settings == [
        {
            "n_components": 2,
            "reg_covar": 1e-3,
            "max_iter": 10,
            "init_params": "kmeans",
            "random_state": 7,
        }
    ]


def test_classes_weigh_as_many_images_as_they_have_and_may_have_any_labels():
    encoded, labels = posterior_of(1000, 0)
    labels = np.where(np.arange(1000) % 4, np.uint8(200), np.uint8(17))
    called = []
    arrays, _ = fitted_prior.fit(encoded, labels, encoded, 0, lambda: called.append(len(called)))
    assert called == [0, 1]  # before each class
    assert arrays.labels.tolist() == sorted(arrays.labels.tolist())
    assert set(arrays.labels) == {17, 200}
    np.testing.assert_allclose(arrays.weights[arrays.labels == 17].sum(), 0.25)


def test_the_fit_has_the_same_bits_for_any_number_of_threads(monkeypatch):
    random = np.random.default_rng(0)
    encoded = random.standard_normal((2, 4000, 24), np.float32)
    encoded[0] = encoded[0] @ random.standard_normal((24, 24), np.float32)
    labels = np.arange(4000, dtype=np.uint8) % 3
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        with threadpool_limits(threads):
            some = Encoded(*encoded[:, :200])
            found.append(fitted_prior.fit(Encoded(*encoded), labels, some, seed=3)[0])
    for array, other in zip(*found, strict=True):
        np.testing.assert_array_equal(array, other)


def test_k_means_and_products_use_one_thread_for_each_class(monkeypatch):
    """OpenMP's limit holds only for the thread that sets it. On one core this proves nothing."""
    found = []
    fit = sklearn.mixture.GaussianMixture.fit

    def recorded(mixture, points):
        found.extend((pool["user_api"], pool["num_threads"]) for pool in threadpool_info())
        return fit(mixture, points)

    monkeypatch.setattr(sklearn.mixture.GaussianMixture, "fit", recorded)
    encoded, labels = posterior_of(300, 0)
    assert fitted_prior.fit(encoded, labels % 2, encoded, 0)[0] is not None
    assert {threads for _, threads in found} == {1}
    assert {"blas", "openmp"} == {api for api, _ in found}


def test_the_fit_depends_on_the_seed_and_on_one_sample_of_each_image():
    """Its covariances are those of z, not of mu: they include the variance of q(z | x)."""
    encoded, _ = posterior_of(50, 0)
    wide = encoded._replace(log_var=np.full((50, 3), 0.0, np.float32))
    labels = np.zeros(50, np.uint8)
    first, other = (fitted_prior.fit(wide, labels, wide, seed)[0] for seed in (0, 1))
    assert (first.means != other.means).any()
    # mu has a variance of 1 + 0.01 in both dimensions, and q(z | x) adds 1.
    total = np.einsum("m,mij->ij", first.weights, first.covariances)
    between = first.means - first.weights @ first.means
    total += np.einsum("m,mi,mj->ij", first.weights, between, between)
    assert 1.2 < total[0, 0] < 3.2 and 1.2 < total[1, 1] < 3.2


def test_where_the_standard_normal_is_as_good_it_stays():
    random = np.random.default_rng(0)
    training, validation = (
        Encoded(random.standard_normal((n, 3), np.float32), np.full((n, 3), -20, np.float32))
        for n in (30, 3000)
    )
    arrays, record = fitted_prior.fit(training, np.zeros(30, np.uint8), validation, 0)
    assert arrays is None and record.gain < 0
    assert "N(0, I) fits the validation images at least as well" in record.reason


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda mu, log_var, labels: (1e6 * mu, log_var, labels), "beyond 900,000"),
        (lambda mu, log_var, labels: (mu, log_var + 400, labels), "beyond 900,000"),
        (lambda mu, log_var, labels: (np.nan * mu + mu, log_var, labels), "not finite"),
        (
            lambda mu, log_var, labels: (0 * mu, 0 * log_var, labels),
            "no latent dimension is active",
        ),
        (
            lambda mu, log_var, labels: (mu, log_var, 5 * (np.arange(40) == 3).astype(np.uint8)),
            "only one training image has the label 5",
        ),
    ],
)
def test_where_nothing_can_be_fitted_the_record_says_why(change, says):
    encoded, labels = posterior_of(40, 0)
    *changed, labels = change(*encoded, labels)
    with np.errstate(all="ignore"):
        arrays, record = fitted_prior.fit(Encoded(*changed), labels, Encoded(*changed), 0)
    assert arrays is None and says in record.reason and record.gain is None


@pytest.mark.parametrize(
    "deviation, dimensions, tolerance", [(300.0, 3, 0.01), (0.05, 3, 0.1), (10.0, 400, 0.01)]
)
def test_latents_of_any_scale_get_a_prior_of_that_scale(deviation, dimensions, tolerance):
    """A small --beta gives such latents. The gain is about that of the Gaussian they come from."""
    random = np.random.default_rng(0)
    mu = deviation * random.standard_normal((3000, dimensions))
    encoded = Encoded(np.float32(mu), np.full(mu.shape, -20, np.float32))
    validation = Encoded(encoded.mu[2000:], encoded.log_var[2000:])
    encoded = Encoded(encoded.mu[:2000], encoded.log_var[:2000])
    arrays, record = fitted_prior.fit(encoded, None, validation, 0)
    gains = stats.norm(0, deviation).logpdf(mu[2000:]) - stats.norm.logpdf(mu[2000:])
    assert record.gain == pytest.approx(gains.sum(1).mean(), rel=tolerance)
    drawn = random.standard_normal((4000, dimensions), np.float32)
    z = Mixture(arrays).sample(drawn, random.random(4000, np.float32)).numpy()
    np.testing.assert_allclose(z.std(axis=0), deviation, rtol=0.1)
    content = io.BytesIO()
    np.savez(content, **arrays._asdict())
    content.seek(0)
    assert fitted_prior.read(content, "prior.npz", dimensions)


def test_a_latent_dimension_far_from_the_standard_normal_is_fitted_although_mu_is_constant():
    encoded, labels = posterior_of(400, 0)
    encoded.mu[:, 2], encoded.log_var[:, 2] = 7, -6
    arrays, _ = fitted_prior.fit(encoded, labels, encoded, 0)
    assert arrays.active.tolist() == [0, 1, 2]
    np.testing.assert_allclose(arrays.means[:, 2], 7, atol=0.2)
    variances = arrays.covariances[:, 2, 2] + np.square(arrays.means[:, 2] - 7)
    np.testing.assert_allclose(arrays.weights @ variances, np.exp(-6), rtol=0.3)


def test_a_prior_of_too_many_dimensions_is_not_fitted():
    mu = np.random.default_rng(0).standard_normal((20, 3600), np.float32)
    encoded = Encoded(mu, np.zeros_like(mu))
    arrays, record = fitted_prior.fit(encoded, None, encoded, 0)
    assert (
        arrays is None
        and record.reason == "it would be too large for 3,600 active latent dimensions"
    )


@pytest.mark.parametrize("error", [ValueError("ill-defined"), MemoryError()])
def test_a_fit_that_fails_is_a_reason_and_no_end(monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(sklearn.mixture.GaussianMixture, "fit", fails)
    encoded, labels = posterior_of(40, 0)
    arrays, record = fitted_prior.fit(encoded, labels, encoded, 0)
    assert arrays is None and f"cannot be fitted ({type(error).__name__}" in record.reason


def changed(**arrays):
    return lambda good: good | {name: change(good[name]) for name, change in arrays.items()}


BAD = {
    "a missing array": lambda good: {k: v for k, v in good.items() if k != "means"},
    "one more": lambda good: good | {"more": np.zeros(1)},
    "objects": changed(means=lambda a: a.astype(object)),
    "float32": changed(means=lambda a: a.astype(np.float32)),
    "another rank": changed(covariances=lambda a: a[0]),
    "fewer means": changed(means=lambda a: a[1:]),
    "fewer labels": changed(labels=lambda a: a[1:]),
    "other covariances": changed(covariances=lambda a: a[:, :2, :2].copy()),
    "no component": lambda good: {k: v[:0] if k != "active" else v for k, v in good.items()},
    "no dimension": changed(
        active=lambda a: a[:0], means=lambda a: a[:, :0], covariances=lambda a: a[:, :0, :0]
    ),
    "a dimension too far": changed(active=lambda a: a + 1),
    "a dimension before the first": changed(active=lambda a: a - 2),
    "dimensions out of order": changed(active=lambda a: a[::-1].copy()),
    "a dimension twice": changed(active=lambda a: a[[0, 0, 1]]),
    "labels out of order": changed(labels=lambda a: a[::-1].copy()),
    "NaN": changed(means=lambda a: a * np.nan),
    "huge": changed(means=lambda a: a * 1e300),
    "just too large": changed(means=lambda a: 0 * a - 1e12),
    "weights that do not sum to 1": changed(weights=lambda a: a / 2),
    "weights that nearly sum to 1": changed(weights=lambda a: a * (1 + 3e-6)),
    "a weight of zero": changed(weights=lambda a: np.array([0.0, 0.5, 0.25, 0.25])),
    "a negative weight": changed(weights=lambda a: np.array([-0.25, 0.5, 0.5, 0.25])),
    "not symmetric": changed(covariances=lambda a: a + np.triu(np.ones((3, 3)), 1)),
    "not positive definite": changed(covariances=lambda a: -a),
    "next to nothing": changed(covariances=lambda a: 1e-90 * a),
    "nearly nothing": changed(covariances=lambda a: 0 * a + 0.9e-12 * np.eye(3)),
}


def saved(arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    content.seek(0)
    return content


@pytest.mark.parametrize("name", BAD)
def test_a_bad_prior_is_one_line(arrays, name):
    good = fitted_prior.read(saved(arrays._asdict()), "prior.npz", LATENT_DIM)
    for array, expected in zip(good, arrays, strict=True):
        np.testing.assert_array_equal(array, expected)
    bad = BAD[name](arrays._asdict())
    with pytest.raises(UserError) as error:
        fitted_prior.read(saved(bad), "prior.npz", LATENT_DIM)
    assert re.match("prior.npz.* is damaged or not what it should be", str(error.value))


def test_more_components_than_any_fit_has_are_refused():
    count = 10 * 256
    many = PriorArrays(
        np.array([0]),
        np.repeat(np.arange(256, dtype=np.uint8), 10),
        np.full(count, 1 / count),
        np.zeros((count, 1)),
        np.full((count, 1, 1), 1.1e-6),
    )
    assert len(fitted_prior.read(saved(many._asdict()), "p", 1).weights) == count
    more = PriorArrays(many.active, *(np.concatenate([a[:1], a]) for a in many[1:]))
    more = more._replace(weights=more.weights / more.weights.sum())
    with pytest.raises(UserError, match="2561 components of 1 dimensions"):
        fitted_prior.read(saved(more._asdict()), "p", 1)
