"""Digits from the decoder alone: samples in constant memory, and paths through the latent space.

sampler = Sampler(latent_dim=128, seed=0, prior=mixture)
for images in generate(decoder, sampler, 1_000_000): ...      # uint8 (at most 1000, 784)
for labels in generated_labels(sampler, 1_000_000): ...       # uint8 (at most 1000,)

digits = decode(decoder, interpolation(z[:20]))
"""

import dataclasses
import itertools
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import model
from support import noise, records
from support.analysis import fitted_prior, metrics

# Images are computed in chunks of one size, so that the first n images of a seed are the same
# however many are generated.
CHUNK = 1000
# While one chunk waits for the slower of its threads, or for the disk, another one is computed.
CHUNKS_AT_ONCE = 3
# A sample of a requested class is sampled again where the prior gives the class a probability below
# SURE, with the noise of a chunk that no count of images reaches (at most 2^31 - 1, in chunks of
# 1000). With 0.99, the Frechet distance of such samples from training images grows again.
SURE = 0.9
MOST_ATTEMPTS = 5
MOST_CHUNKS = 2**22
STEPS = 11
MOST_UNITS = 10
DEVIATIONS = 3
GRID = 20


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Samples z, from the fitted prior or from N(0, I).

    Attributes:
        latent_dim: size of z.
        seed: seed of the noise; the noise of a sample depends on its position.
        temperature: scales how far z is from 0, or from the means of the fitted prior.
        prior: the fitted prior; None: N(0, I).
        labels: the classes to sample in turn, which needs the fitted prior; empty: classes are
            as frequent as in training.
    """

    latent_dim: int
    seed: int
    temperature: float = 1.0
    prior: fitted_prior.Mixture | None = None
    labels: tuple[int, ...] = ()

    def chunk(self, index: int | tf.Tensor) -> tf.Tensor:
        """Returns the z of one chunk of samples, float32 (CHUNK, latent_dim)."""
        if self.prior is None:
            return self._normal(index)
        if not self.labels:
            return self._sample(self.prior, index)
        labels = self.chunk_labels(index)
        if not self.prior.classifies:
            return self._sample(self.prior, index, labels)
        return self._recognized(self.prior, index, labels)

    def _recognized(
        self, prior: fitted_prior.Mixture, index: int | tf.Tensor, labels: tf.Tensor
    ) -> tf.Tensor:
        """Returns samples of given classes that the prior classifies as these, too.

        Some samples of a class lie where another class is as probable, and decode into digits that
        look like both. Where the probability of the class is below `SURE`, the next sample takes
        the place of such a sample if its probability is higher, in up to `MOST_ATTEMPTS` attempts.

        Args:
            prior: the fitted prior.
            index: the number of the chunk.
            labels: the class of each sample, uint8 (CHUNK,).
        """
        z = self._sample(prior, index, labels)
        probability = prior.probability(z, labels)
        for attempt in range(1, MOST_ATTEMPTS):
            other = self._sample(prior, index + attempt * MOST_CHUNKS, labels)
            others = prior.probability(other, labels)
            is_better = (probability < SURE) & (others > probability)
            z = tf.where(is_better[:, None], other, z)
            probability = tf.where(is_better, others, probability)
        return z

    def _sample(
        self, prior: fitted_prior.Mixture, key: int | tf.Tensor, labels: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns samples from the fitted prior, float32 (CHUNK, latent_dim)."""
        return prior.sample(self._normal(key), self._uniform(key), labels)

    def _normal(self, key: int | tf.Tensor) -> tf.Tensor:
        """Returns standard normal noise, scaled by the temperature, float32 (CHUNK, latent_dim)."""
        drawn = noise.normal([CHUNK, self.latent_dim], self.seed, noise.GENERATION, key)
        return drawn * self.temperature

    def chunk_labels(self, index: int | tf.Tensor) -> tf.Tensor:
        """Returns the class that each z of a chunk was sampled from, uint8 (CHUNK,).

        It is the class of the component of the fitted prior; N(0, I) has no classes.
        """
        assert self.prior is not None, "N(0, I) has no classes"
        if not self.labels:
            return self.prior.sample_labels(self._uniform(index))
        positions = tf.cast(index, tf.int64) * CHUNK + tf.range(CHUNK, dtype=tf.int64)
        return tf.gather(tf.constant(self.labels, tf.uint8), positions % len(self.labels))

    def _uniform(self, key: int | tf.Tensor) -> tf.Tensor:
        """Returns the random numbers that choose the components of a chunk, float32 (CHUNK,)."""
        return noise.uniform([CHUNK], self.seed, noise.PRIOR, key)


def decode(decoder: keras.Model, z: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Decodes z into images: (..., latent_dim) -> uint8 (..., 784)."""
    flat = z.reshape(-1, z.shape[-1]).astype(np.float32)
    images = metrics.to_uint8(model.decode(decoder, flat)).numpy()
    return images.reshape(*z.shape[:-1], -1)


def generate(
    decoder: keras.Model,
    sampler: Sampler,
    count: int,
    report_done: Callable[[int], None] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yields generated images, uint8 (n, 784) with n at most CHUNK, `count` in all.

    Args:
        decoder: the decoder of a `model.VAE`.
        sampler: samples z.
        count: how many images.
        report_done: called with the number of images that are done; None: no report.
    """

    @tf.function(autograph=False)
    def compute(index: tf.Tensor) -> tf.Tensor:
        return metrics.to_uint8(model.decode(decoder, sampler.chunk(index)))

    # Traced here, once; otherwise each thread would begin by tracing it.
    compute = compute.get_concrete_function(tf.TensorSpec([], tf.int32))

    def compute_chunk(index: int) -> NDArray[np.uint8]:
        return compute(tf.constant(index)).numpy()

    indices = iter(range(-(-count // CHUNK)))
    pending: deque = deque()
    done = 0
    with ThreadPoolExecutor(CHUNKS_AT_ONCE) as pool:
        while done < count:
            for index in itertools.islice(indices, CHUNKS_AT_ONCE - len(pending)):
                pending.append(pool.submit(compute_chunk, index))
            images = pending.popleft().result()[: count - done]
            done += len(images)
            if report_done:
                report_done(done)
            yield images


def generated_labels(sampler: Sampler, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yields the classes of the images that `generate` yields, uint8 (n,), in the same chunks."""

    @tf.function(autograph=False)
    def compute(index: tf.Tensor) -> tf.Tensor:
        return sampler.chunk_labels(index)

    for first in range(0, count, CHUNK):
        labels = compute(tf.constant(first // CHUNK)).numpy()
        yield labels[: count - first]


class Stream(NamedTuple):
    """An array that is computed while it is written.

    Attributes:
        shape: its shape.
        chunks: parts of it in order, uint8, of any shape.
    """

    shape: tuple[int, ...]
    chunks: Iterable[NDArray[np.uint8]]


def write_npz(path: str, arrays: Mapping[str, Stream | NDArray]) -> None:
    """Writes arrays to an uncompressed `.npz`, in constant memory.

    Args:
        path: the path of the file.
        arrays: the arrays by name; those that are large are streams.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                if isinstance(array, Stream):
                    _write_stream(file, array)
                else:
                    np.lib.format.write_array(file, array, allow_pickle=False)


def _write_stream(file: IO[bytes], stream: Stream) -> None:
    """Writes a stream to an open file as an `.npy`."""
    header = {"descr": "|u1", "fortran_order": False, "shape": stream.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for chunk in stream.chunks:
        file.write(chunk.data)


def interpolation(z: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns paths between pairs of z: the first to the second, the third to the fourth, ...

    Args:
        z: (2 n, latent_dim).

    Returns:
        (n, STEPS, latent_dim), the ends of each pair included.
    """
    pairs = z.reshape(-1, 2, z.shape[-1])
    shares = np.linspace(0, 1, STEPS)
    return np.stack([[slerp(a, b, share) for share in shares] for a, b in pairs])


def closed_path(z: NDArray[np.floating], steps: int) -> NDArray[np.floating]:
    """Returns a path through all z that ends where it began: the first, the second, ..., the first.

    It slows down near each z, so that a film of it rests there.

    Args:
        z: (n, latent_dim).
        steps: the number of steps from one z to the next.

    Returns:
        (n * steps, latent_dim); the first z is not repeated at the end.
    """
    shares = np.arange(steps) / steps
    eased = shares**2 * (3 - 2 * shares)
    pairs = zip(z, np.roll(z, -1, axis=0), strict=True)
    return np.stack([slerp(a, b, share) for a, b in pairs for share in eased])


def slerp(
    first: NDArray[np.floating], second: NDArray[np.floating], share: float
) -> NDArray[np.floating]:
    """Spherical interpolation (Shoemake 1985) of two vectors: `first` at 0, `second` at 1.

    A straight line would pass too close to the origin, where a high-dimensional N(0, I) has hardly
    any mass (White, "Sampling Generative Networks", 2016).
    """
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    angle = np.arccos(np.clip(first @ second / max(lengths, 1e-30), -1, 1))
    if np.sin(angle) < 1e-6:
        return (1 - share) * first + share * second
    sines = np.sin([(1 - share) * angle, share * angle]) / np.sin(angle)
    return sines[0] * first + sines[1] * second


class Traversal(NamedTuple):
    """Paths from one z along the latent dimensions with the largest KL, one at a time.

    Attributes:
        units: the dimensions, in descending order of KL, (n,).
        kld: their mean KL over the training images, nats, (n,).
        deviations: the steps of each path, in standard deviations of mu over the training
            images from its mean, (STEPS,).
        start: the position of the original z on each path, in the same unit, (n,).
        z: float32 (n, STEPS, latent_dim).
    """

    units: NDArray[np.int64]
    kld: NDArray[np.float64]
    deviations: NDArray[np.float64]
    start: NDArray[np.float64]
    z: NDArray[np.float32]


def swinging(
    start: NDArray[np.float32], posterior: records.Posterior, frames: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Returns the paths of `traversal` there and back, for a film.

    Args:
        start: z, (latent_dim,).
        posterior: gives the range of each dimension.
        frames: the length of each path.

    Returns:
        The paths (n, frames, latent_dim), which begin and end at the mean of mu, and their
        positions in standard deviations from it, (frames,).
    """
    deviations = DEVIATIONS * np.sin(2 * np.pi * np.arange(frames) / frames)
    return _along_units(start, posterior, deviations), deviations


def traversal(start: NDArray[np.float32], posterior: records.Posterior) -> Traversal:
    """Returns paths from the z `start`, (latent_dim,); `posterior` gives their ranges."""
    mean, deviation, kld = (np.array(column) for column in posterior)
    units = _most_informative(posterior)
    deviations = np.linspace(-DEVIATIONS, DEVIATIONS, STEPS)
    z = _along_units(start, posterior, deviations)
    # A dimension without any deviation must not cause a division by zero.
    safe_deviation = np.maximum(deviation[units], 1e-30)
    passes_start = (start[units] - mean[units]) / safe_deviation
    return Traversal(units, kld[units], deviations, passes_start, z)


def _most_informative(posterior: records.Posterior) -> NDArray[np.int64]:
    """Returns the latent dimensions with the largest KL, in descending order."""
    return np.argsort(-np.array(posterior.KLD), kind="stable")[:MOST_UNITS]


def _along_units(
    start: NDArray[np.float32], posterior: records.Posterior, deviations: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Returns z with one dimension at a time at other values, (n, len(deviations), latent_dim)."""
    units = _most_informative(posterior)
    mean, deviation = np.array(posterior.mu_mean), np.array(posterior.mu_std)
    z = np.tile(start, (len(units), len(deviations), 1))
    for row, unit in enumerate(units):
        z[row, :, unit] = mean[unit] + deviations * deviation[unit]
    return z


def manifold() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns a grid over all of a two-dimensional z (Kingma and Welling 2014, figure 4).

    Returns:
        The grid (GRID, GRID, 2), whose rows go from the largest z[1] down and whose columns go
        from the smallest z[0] up; and the values of z[0], (GRID,), which are equally spaced
        quantiles of N(0, 1).
    """
    from scipy.special import ndtri

    values = ndtri((np.arange(GRID) + 0.5) / GRID)
    columns, rows = np.meshgrid(values, values[::-1])
    return np.stack([columns, rows], axis=-1), values
