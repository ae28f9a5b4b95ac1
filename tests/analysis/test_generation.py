"""Generation: samples that depend only on their position, and paths through the latent space."""

import numpy as np
import pytest
from scipy.stats import norm

import model
from support import records
from support.analysis import generation

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def decoder():
    return model.build_decoder((8,), 3, "tanh")


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

        def sample(self, noise, uniform, labels=None):
            return 0 * noise if labels is None else 0 * noise + np.array(labels)[:, None]

    plain = generation.Sampler(3, seed=1).chunk(1).numpy()
    cool = generation.Sampler(3, seed=1, temperature=0.5).chunk(1).numpy()
    np.testing.assert_allclose(cool, 0.5 * plain)
    in_turn = generation.Sampler(3, seed=1, prior=Classes(), labels=(6, 0, 1)).chunk(1).numpy()
    # The second chunk begins with sample 1000, which has the second of the three labels.
    np.testing.assert_array_equal(in_turn[:4, 0], [0, 1, 6, 0])


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
    first = generation.write_npz(path, chunks, 250, {"labels": np.arange(5)})
    np.testing.assert_array_equal(first, images[:100])
    with np.load(path) as found:
        np.testing.assert_array_equal(found["images"], images.reshape(250, 28, 28))
        np.testing.assert_array_equal(found["labels"], np.arange(5))
