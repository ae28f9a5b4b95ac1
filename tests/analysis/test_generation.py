"""Generation: samples that depend only on their position, and paths through the latent space."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.stats import norm

import model
from support import records
from support.analysis import fitted_prior, generation

RANDOM = np.random.default_rng(0)
# Three components of two classes, on two of three dimensions.
PRIOR = fitted_prior.PriorArrays(
    active=np.array([0, 2]),
    labels=np.array([2, 7, 7], np.uint8),
    weights=np.array([0.3, 0.3, 0.4]),
    means=np.array([[-9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]),
    covariances=np.tile(np.eye(2), (3, 1, 1)),
)


@pytest.fixture(scope="module")
def decoder():
    return model.build_decoder((8,), 3, "tanh", residual=False)


def test_images_come_in_order_and_as_many_as_asked_for(decoder):
    sampler = generation.Sampler(latent_dim=3, seed=1)
    done = []
    parts = list(generation.generate(decoder, sampler, 2300, done.append))
    assert [len(part) for part in parts] == [1000, 1000, 300] and done == [1000, 2000, 2300]
    for index, part in enumerate(parts):
        z = sampler.chunk(index).numpy()[: len(part)]
        logits = decoder(z).numpy().astype(float)
        expected = 255 / (1 + np.exp(-logits))
        np.testing.assert_allclose(part, expected, atol=0.51)


def test_temperature_and_labels_shape_the_samples():
    class Classes:
        """Stands in for the fitted prior: z is the requested label."""

        classifies = False

        def sample(self, noise, uniform, labels=None):
            return 0 * noise if labels is None else 0 * noise + np.array(labels)[:, None]

    plain = generation.Sampler(3, seed=1).chunk(1).numpy()
    cool = generation.Sampler(3, seed=1, temperature=0.5).chunk(1).numpy()
    np.testing.assert_allclose(cool, 0.5 * plain)
    in_turn = generation.Sampler(3, seed=1, prior=Classes(), labels=(6, 0, 1)).chunk(1).numpy()
    # The second chunk begins with sample 1000, which has the second of the three labels.
    np.testing.assert_array_equal(in_turn[:4, 0], [0, 1, 6, 0])


def test_samples_of_a_class_that_may_be_another_one_are_sampled_again():
    near = PRIOR._replace(means=np.array([[-1.0, 0.0], [1.0, 0.0], [1.5, 0.0]]))
    mixture = fitted_prior.Mixture(near)
    sampler = generation.Sampler(3, seed=1, prior=mixture, labels=(2, 7))
    index, labels = 4, np.tile(np.array([2, 7], np.uint8), 500)
    first = mixture.sample(sampler._normal(index), sampler._uniform(index), labels).numpy()
    found = sampler.chunk(index).numpy()
    before, after = (mixture.probability(z, labels).numpy() for z in (first, found))
    is_sure = before >= 0.9
    assert 0.3 < np.mean(~is_sure) < 0.6
    # Only the others change, none for the worse, and nearly all are clear in the end.
    np.testing.assert_array_equal(found[is_sure], first[is_sure])
    assert (after >= before).all() and np.mean(after < 0.9) < 0.1
    # The first that is clear remains.
    for row in np.flatnonzero((before < 0.9) & (after >= 0.9))[:20]:
        attempts = (
            mixture.sample(sampler._normal(key), sampler._uniform(key), labels).numpy()[row]
            for key in range(index, index + 5 * generation.MOST_CHUNKS, generation.MOST_CHUNKS)
        )
        clear = (z for z in attempts if mixture.probability(z[None], labels[[row]]) >= 0.9)
        np.testing.assert_array_equal(found[row], next(clear))
    # A chunk of another number has other replacements.
    assert not np.isin(sampler.chunk(5).numpy()[:, 0], found[:, 0]).any()


def test_spherical_interpolation_keeps_the_length_and_both_ends():
    a, b = np.array([3.0, 0.0]), np.array([0.0, 3.0])
    np.testing.assert_allclose(generation.slerp(a, b, 0.5), [4.5**0.5] * 2)
    np.testing.assert_allclose(
        generation.slerp(a, b, 1 / 3), 3 * np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    )
    np.testing.assert_allclose(generation.slerp(a, 2 * a, 0.25), 1.25 * a)
    z = RANDOM.normal(size=(6, 5))
    paths = generation.interpolation(z)
    assert paths.shape == (3, 11, 5)
    np.testing.assert_allclose(paths[:, 0], z[::2])
    np.testing.assert_allclose(paths[:, -1], z[1::2])
    np.testing.assert_allclose(paths[1, 3], generation.slerp(z[2], z[3], 0.3))


def test_a_closed_path_visits_every_z_and_returns_to_its_start():
    z = RANDOM.normal(size=(3, 5))
    path = generation.closed_path(z, 8)
    assert path.shape == (24, 5)
    np.testing.assert_allclose(path[::8], z)
    # Halfway in time is halfway in space; the last steps lead back to the first z, ever slower.
    np.testing.assert_allclose(path[20], generation.slerp(z[2], z[0], 0.5))
    lengths = np.linalg.norm(np.diff(path[16:], axis=0), axis=1)
    assert lengths.argmax() in (3, 4) and np.linalg.norm(path[23] - z[0]) < lengths.max() / 2


def test_a_swing_goes_from_the_mean_to_both_ends():
    posterior = records.Posterior(mu_mean=(0.5, -1.0), mu_std=(2.0, 0.5), KLD=(0.3, 2.0))
    z, deviations = generation.swinging(np.array([9.0, 9.0], np.float32), posterior, 12)
    np.testing.assert_allclose(deviations[[0, 1, 3, 6, 9]], [0, 1.5, 3, 0, -3], atol=1e-9)
    np.testing.assert_allclose(z[0, :, 1], -1 + 0.5 * deviations, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(z[1, :, 0], 0.5 + 2 * deviations, rtol=1e-5, atol=1e-6)
    assert (z[0, :, 0] == 9).all() and (z[1, :, 1] == 9).all()


def test_a_traversal_moves_one_dimension_over_its_range():
    posterior = records.Posterior(
        mu_mean=(0.5, -1.0, 0.0), mu_std=(2.0, 0.5, 0.0), KLD=(0.3, 2.0, 0.0)
    )
    start = np.array([1.5, 0.25, 0.0], np.float32)
    paths = generation.traversal(start, posterior)
    np.testing.assert_array_equal(paths.units, [1, 0, 2])
    np.testing.assert_allclose(paths.kld, [2.0, 0.3, 0.0])
    np.testing.assert_allclose(paths.deviations[[0, 5, 10]], [-3, 0, 3], atol=1e-9)
    # (0.25 + 1) / 0.5 and (1.5 - 0.5) / 2.
    np.testing.assert_allclose(paths.start, [2.5, 0.5, 0.0])
    np.testing.assert_allclose(paths.z[0, :, 1], -1 + 0.5 * paths.deviations, rtol=1e-6)
    np.testing.assert_allclose(paths.z[1, :, 0], 0.5 + 2 * paths.deviations, rtol=1e-6)
    assert (paths.z[0][:, [0, 2]] == start[[0, 2]]).all()
    assert (paths.z[1][:, [1, 2]] == start[[1, 2]]).all()


def test_the_manifold_has_z0_to_the_right_and_z1_upwards():
    grid, values = generation.manifold()
    assert grid.shape == (20, 20, 2)
    np.testing.assert_allclose(values, norm.ppf(np.linspace(0.025, 0.975, 20)))
    assert grid[0, 0].tolist() == [values[0], values[-1]]
    assert grid[0, -1].tolist() == [values[-1], values[-1]]
    assert grid[-1, 0].tolist() == [values[0], values[0]]


def test_an_npz_is_written_as_numpy_would(tmp_path):
    images = RANDOM.integers(0, 256, (250, 784), np.uint8)
    chunks = [images[:120], images[120:240], images[240:]]
    path = str(tmp_path / "it.npz")
    stream = generation.Stream((250, 28, 28), iter(chunks))
    generation.write_npz(path, {"images": stream, "labels": np.arange(5), "prior": np.array("it")})
    with np.load(path) as found:
        assert found.files == ["images", "labels", "prior"] and found["prior"] == "it"
        np.testing.assert_array_equal(found["images"], images.reshape(250, 28, 28))
        np.testing.assert_array_equal(found["labels"], np.arange(5))


def test_labels_in_turn_come_in_the_chunks_of_the_images_in_constant_memory():
    sampler = generation.Sampler(3, seed=1, prior=fitted_prior.Mixture(PRIOR), labels=(6, 0, 1))
    parts = list(generation.generated_labels(sampler, 2300))
    assert [len(part) for part in parts] == [1000, 1000, 300]
    np.testing.assert_array_equal(np.concatenate(parts), np.resize([6, 0, 1], 2300))
    # All at once would be 2 GB.
    tracemalloc.start()
    some = list(itertools.islice(generation.generated_labels(sampler, 2**31 - 1), 5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, some)) == 5000 and peak < 10_000_000
    # The last positions are beyond the range of int32.
    last = sampler.chunk_labels((2**31 - 1) // 1000).numpy()
    assert last[647] == (6, 0, 1)[(2**31 - 1) % 3] and last[999] == (6, 0, 1)[(2**31 + 351) % 3]


def test_labels_are_those_of_the_components_that_z_was_sampled_from():
    """At temperature 0 each z is the mean of its component, and the means are far apart."""
    sampler = generation.Sampler(3, seed=1, temperature=0, prior=fitted_prior.Mixture(PRIOR))
    labels = np.concatenate(list(generation.generated_labels(sampler, 1700)))
    z = np.concatenate([sampler.chunk(0), sampler.chunk(1)])[:1700, PRIOR.active]
    nearest = np.linalg.norm(z[:, None] - PRIOR.means, axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(labels, PRIOR.labels[nearest])
    assert labels.dtype == np.uint8
    np.testing.assert_allclose(np.mean(labels == 7), 0.7, atol=0.05)
