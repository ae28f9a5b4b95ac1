"""The fitted prior: a Gaussian mixture for each class, fitted to the encoded images.

    arrays, record = fit(training, labels, validation, seed)     # with scikit-learn
    mixture = Mixture(arrays)                                    # without it
    z = mixture.sample(noise, uniform)

N(0, I), the prior in the ELBO, has probability mass where no training image is encoded, and z from
there decodes into images that do not look like digits. A density that is fitted after training to
samples from q(z | x) avoids such regions (Ghosh et al., "From Variational to Deterministic
Autoencoders", 2020: ex-post density estimation). This is the only part of training that uses
labels. Inactive latent dimensions, which carry no information, stay N(0, 1).
"""

import functools
import itertools
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from support import files, noise, records

if TYPE_CHECKING:
    import tensorflow as tf
    from sklearn.mixture import GaussianMixture

# The variance of mu over images above which a latent dimension is active.
ACTIVE_VARIANCE = 0.01
# With more components per class, the density of validation images falls.
COMPONENTS = 10
# A component needs this many images per dimension, or its covariance is left to chance.
IMAGES_PER_DIMENSION = 10
RIDGE = 1e-3
EM_ITERATIONS = 10
# A latent dimension whose mean of z^2 is outside these bounds has a scale of its own, as happens
# with a small --beta. It is fitted in units of its standard deviation, even if mu hardly varies.
ORDINARY_SQUARE = 0.25, 4.0
LEAST_SCALE = 1e-4
# Bounds that readers check: on means and covariances, on the number of classes, and on the diagonal
# of a covariance's Cholesky factor.
LARGEST_VALUE = 1e12
MOST_CLASSES = 256
LEAST_DEVIATION = 1e-6
# Larger values of z could give covariances beyond LARGEST_VALUE.
FARTHEST_Z = 9e5
# All covariances together; those of a thousand dimensions and ten classes take 80 MB.
LARGEST_BYTES = 100_000_000


class PriorArrays(NamedTuple):
    """The arrays of `prior.npz`, for M components on A active dimensions.

    Attributes:
        active: the fitted latent dimensions, ascending, int64 (A,): those that are active, or
            have a scale of their own.
        labels: the class of each component, ascending, uint8 (M,).
        weights: the weights of the components, which sum to 1, float64 (M,).
        means: float64 (M, A).
        covariances: float64 (M, A, A).
    """

    active: NDArray[np.int64]
    labels: NDArray[np.uint8]
    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]


class Component(NamedTuple):
    """One Gaussian of a mixture: its class, its mean (A,) and its covariance (A, A)."""

    label: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


class Encoded(NamedTuple):
    """q(z | x) of some images: `mu` and `log_var`, float32 (n, latent_dim)."""

    mu: NDArray[np.float32]
    log_var: NDArray[np.float32]


def active_units(mu: NDArray[np.floating]) -> NDArray[np.int64]:
    """Returns which latent dimensions are active, ascending.

    A dimension is active if the variance of mu over images is above 0.01 (Burda, Grosse and
    Salakhutdinov 2016, section 5.2).

    Args:
        mu: (n, latent_dim).
    """
    return np.flatnonzero(mu.var(axis=0) > ACTIVE_VARIANCE)


def fit(
    training: Encoded,
    labels: NDArray[np.uint8] | None,
    validation: Encoded,
    seed: int,
    before_each_class: Callable[[], None] = lambda: None,
) -> tuple[PriorArrays | None, records.PriorRecord]:
    """Fits the mixtures; the result is bit-identical for any number of threads.

    Args:
        training: the encoded training images.
        labels: their labels, (n,); None: one mixture is fitted to all images together.
        validation: other encoded images, on which the fit is compared with N(0, I).
        seed: seed of the fit and of the samples from q(z | x).
        before_each_class: called before the mixture of each class is waited for.

    Returns:
        The arrays, or None if N(0, I) is as good or nothing can be fitted; and the record, which
        says why there are none.
    """
    if labels is None:
        labels = np.zeros(len(training.mu), np.uint8)
    scales = _own_scales(training)
    active = np.flatnonzero((training.mu.var(axis=0) > ACTIVE_VARIANCE) | (scales != 1))
    classes, counts = np.unique(labels, return_counts=True)
    if not len(active):
        return _none("no latent dimension is active")
    components = [_affordable_components(count, len(active)) for count in counts]
    if 8 * sum(components) * len(active) ** 2 > LARGEST_BYTES:
        return _none(f"it would be too large for {len(active):,} active latent dimensions")
    if counts.min() < 2:
        return _none(f"only one training image has the label {classes[counts.argmin()]}")
    random = noise.generator(seed)
    z = _antithetic_samples(training, active, random)
    if not np.abs(z).max() < FARTHEST_Z:
        return _none(f"values of z are not finite, or beyond {FARTHEST_Z:,.0f}")
    # The density relative to N(0, I) depends on the active dimensions alone, and one sample of the
    # pair is enough to compare with.
    z_validation = np.zeros_like(validation.mu)
    z_validation[:, active] = _antithetic_samples(validation, active, random)[0]
    units = Units(z.mean(axis=(0, 1), dtype=np.float64), scales[active])
    points = [units.points(z[:, labels == label]) for label in classes]
    try:
        mixtures = _fit_mixtures(points, components, seed, before_each_class)
        arrays = _joined(mixtures, classes, counts, active, units)
        _check(arrays, latent_dim=training.mu.shape[1])
        gain = float(np.mean(Mixture(arrays).log_ratio(z_validation)))
    except (ValueError, MemoryError) as error:
        # What scikit-learn and NumPy raise for points that no Gaussian fits. The prior is an
        # extra: its failure must not prevent the finished weights from being written.
        return _none(f"the mixtures cannot be fitted ({type(error).__name__}: {error!s:.100})")
    if not np.isfinite(gain):
        return _none("its density on the validation images is not finite")
    if gain <= 0:
        return _none("N(0, I) fits the validation images at least as well", gain)
    return arrays, records.PriorRecord(gain)


def _none(reason: str, gain: float | None = None) -> tuple[None, records.PriorRecord]:
    """Returns what `fit` returns if there is no fitted prior."""
    return None, records.PriorRecord(gain, reason)


class Units(NamedTuple):
    """The origin and the unit in which each of A latent dimensions is fitted, each (A,).

    In these units values are near 1, so that single precision is enough for the fit, which halves
    its time.
    """

    origin: NDArray[np.float64]
    scale: NDArray[np.float64]

    def points(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns z (..., A) in these units, as points (n, A)."""
        points = (z - self.origin) / self.scale
        return points.reshape(-1, len(self.scale)).astype(np.float32)


def _antithetic_samples(
    encoded: Encoded, active: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float32]:
    """Returns two samples of z from q(z | x) of each image, whose noise differs in its sign.

    Args:
        encoded: q(z | x) of n images.
        active: the latent dimensions to sample, (A,).
        random: the generator of the noise.

    Returns:
        float32 (2, n, A)
    """
    mu, log_var = encoded.mu[:, active], encoded.log_var[:, active]
    drawn = random.standard_normal(mu.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = np.exp(0.5 * log_var) * drawn
        return np.stack([mu + distance, mu - distance])


def _own_scales(encoded: Encoded) -> NDArray[np.float64]:
    """Returns the unit of z in each latent dimension, (latent_dim,).

    It is the standard deviation of z in dimensions that have a scale of their own, and 1 in all
    others, where the KL term has kept z near N(0, 1).
    """
    mu, log_var = encoded
    with np.errstate(over="ignore"):
        variance = mu.var(axis=0, dtype=np.float64) + np.exp(log_var).mean(axis=0, dtype=np.float64)
    square = np.square(mu.mean(axis=0, dtype=np.float64)) + variance
    low, high = ORDINARY_SQUARE
    is_ordinary = (low <= square) & (square <= high)
    return np.where(is_ordinary, 1.0, np.maximum(np.sqrt(variance), LEAST_SCALE))


def _affordable_components(images: int, dimensions: int) -> int:
    """Returns how many components a class with this many images can have."""
    return int(np.clip(images // (IMAGES_PER_DIMENSION * (dimensions + 1)), 1, COMPONENTS))


def _fit_mixtures(
    points: Sequence[NDArray[np.float32]],
    components: Sequence[int],
    seed: int,
    before_each_class: Callable[[], None],
) -> "list[GaussianMixture]":
    """Fits a mixture with the given number of components to the points (n, A) of each class."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    def fit_class(class_points: NDArray[np.float32], count: int) -> GaussianMixture:
        mixture = GaussianMixture(
            n_components=count,
            reg_covar=RIDGE,
            max_iter=EM_ITERATIONS,
            init_params="kmeans",
            random_state=seed,
        )
        return mixture.fit(class_points)

    # Several classes are fitted at a time. Within each, NumPy's products use one thread, so that
    # the order of float additions does not depend on the machine; k-means uses OpenMP, whose limit
    # holds only for the thread that sets it.
    threads = ThreadPoolExecutor(
        os.cpu_count(), initializer=threadpool_limits, initargs=(1, "openmp")
    )
    with threads, threadpool_limits(1), warnings.catch_warnings():
        # The small number of iterations is intended: more do not help on validation images.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # From joblib, where `lscpu` is not installed; the number does not matter here.
        warnings.filterwarnings("ignore", "Could not find the number of physical cores")
        fits = [
            threads.submit(fit_class, class_points, count)
            for class_points, count in zip(points, components, strict=True)
        ]
        try:
            mixtures = []
            for fit in fits:
                before_each_class()
                mixtures.append(fit.result())
        finally:
            threads.shutdown(cancel_futures=True)
    return mixtures


def _joined(
    mixtures: "Sequence[GaussianMixture]",
    classes: NDArray[np.uint8],
    counts: NDArray[np.int64],
    active: NDArray[np.int64],
    units: Units,
) -> PriorArrays:
    """Joins the mixtures of all classes into one, in units of z.

    Args:
        mixtures: the mixture of each class, over points in `units`.
        classes, counts: the labels, ascending, and how many images each has.
        active, units: the fitted latent dimensions, and the units of the points.
    """
    components = [len(mixture.weights_) for mixture in mixtures]
    shares = counts / counts.sum()
    weights = np.concatenate([mixture.weights_ for mixture in mixtures]).astype(np.float64)
    weights *= np.repeat(shares, components)
    means = np.concatenate([mixture.means_ for mixture in mixtures])
    covariances = np.concatenate([mixture.covariances_ for mixture in mixtures]).astype(np.float64)
    # Rounding in single precision leaves them slightly asymmetric.
    covariances = (covariances + covariances.swapaxes(1, 2)) / 2
    return PriorArrays(
        active=np.asarray(active, np.int64),
        labels=np.repeat(classes, components),
        # Of each mixture they sum to 1 in single precision only; NumPy's `choice` wants it exactly.
        weights=weights / weights.sum(),
        means=units.origin + means * units.scale,
        covariances=covariances * np.outer(units.scale, units.scale),
    )


_TYPES = {"active": "<i8", "labels": "|u1", "weights": "<f8", "means": "<f8", "covariances": "<f8"}
_RANKS = {"active": 1, "labels": 1, "weights": 1, "means": 2, "covariances": 3}


def read(file: IO[bytes], what: str, latent_dim: int) -> PriorArrays:
    """Reads `prior.npz` from an open file and checks it.

    Args:
        file: the open file, binary and seekable.
        what: the file's name, for messages.
        latent_dim: the size that z must have.

    Raises:
        UserError: the arrays are damaged, or are not a prior of such a z.
    """

    def accepts(name: str) -> files.Accepts:
        return lambda shape, dtype: len(shape) == _RANKS[name] and dtype.str == _TYPES[name]

    found = files.read_npz(file, what, {name: accepts(name) for name in PriorArrays._fields})
    arrays = PriorArrays(**found)
    with files.damage(what):
        _check(arrays, latent_dim)
    return arrays


def _check(arrays: PriorArrays, latent_dim: int) -> None:
    """Raises a ValueError if the arrays are not a prior of z (latent_dim,)."""
    active, weights, covariances = arrays.active, arrays.weights, arrays.covariances
    a, m = len(active), len(weights)
    if not 1 <= a <= latent_dim or not 1 <= m <= COMPONENTS * MOST_CLASSES:
        raise ValueError(f"{m} components of {a} dimensions")
    shapes = [arrays.labels.shape, arrays.means.shape, covariances.shape]
    if shapes != [(m,), (m, a), (m, a, a)]:
        raise ValueError("shapes that disagree")
    if active[0] < 0 or active[-1] >= latent_dim or (np.diff(active) <= 0).any():
        raise ValueError("dimensions out of order or range")
    if (np.diff(arrays.labels.astype(int)) < 0).any():
        raise ValueError("labels out of order")
    if not all(np.abs(array).max() < LARGEST_VALUE for array in arrays):
        raise ValueError("numbers too large or not finite")
    if weights.min() <= 0 or abs(weights.sum() - 1) > 1e-6:
        raise ValueError("weights that are not positive or do not sum to 1")
    if not np.allclose(covariances, covariances.swapaxes(1, 2), rtol=1e-6, atol=1e-9):
        raise ValueError("covariances that are not symmetric")
    # NumPy raises LinAlgError, a ValueError, if one is not positive definite.
    factors = np.linalg.cholesky(covariances)
    if factors.diagonal(axis1=1, axis2=2).min() < LEAST_DEVIATION:
        raise ValueError("covariances that are almost singular")


class Mixture:
    """A mixture of Gaussians over z.

    Args:
        arrays: what `fit` or `read` returns.

    Attributes:
        labels: the classes of its components, ascending, uint8 (C,).
        components: its Gaussians, on the active dimensions.
    """

    def __init__(self, arrays: PriorArrays) -> None:
        self.labels = np.unique(arrays.labels)
        columns = arrays.labels.tolist(), arrays.means, arrays.covariances
        self.components = list(map(Component, *columns))
        self._arrays = arrays
        self._factors = np.linalg.cholesky(arrays.covariances)

    def log_ratios(self, z: "tf.Tensor") -> "tf.Tensor":
        """Returns log of p(z, class) / N(z; 0, I), nats.

        Args:
            z: float32 (n, latent_dim).

        Returns:
            float32 (n, C), in the order of `labels`.
        """
        import tensorflow as tf

        logs = self._component_log_ratios(z)
        ends = np.searchsorted(self._arrays.labels, self.labels, "right").tolist()
        classes = itertools.pairwise([0, *ends])
        return tf.stack([tf.reduce_logsumexp(logs[:, a:b], axis=1) for a, b in classes], axis=1)

    def _component_log_ratios(self, z: "tf.Tensor") -> "tf.Tensor":
        """Returns log of p(z, component) / N(z; 0, I), float32 (n, M)."""
        import tensorflow as tf

        count, size = self._arrays.means.shape
        stacked, offsets, constants = self._densities
        z = tf.gather(z, self._arrays.active, axis=1)
        # All components in one product: (n, A) by (A, A * M).
        # Summed over the middle axis, since sums over a short last axis are slow.
        white = tf.reshape(z @ stacked, [-1, size, count]) - offsets
        distances = tf.reduce_sum(white**2, 1) - tf.reduce_sum(z**2, 1, keepdims=True)
        return constants - 0.5 * distances

    @functools.cached_property
    def _densities(self) -> tuple[NDArray[np.float32], ...]:
        """What the densities of the components need.

        Returns:
            The inverse Cholesky factors side by side, (A, A * M), their products with the means,
            (A, M), and the logarithms of the weights and volumes, (M,).
        """
        _, size = self._arrays.means.shape
        whitening = np.linalg.inv(self._factors)
        offsets = np.einsum("mij,mj->mi", whitening, self._arrays.means)
        # Sums of logarithms, since a product of many deviations overflows.
        log_volumes = np.log(whitening.diagonal(axis1=1, axis2=2)).sum(axis=1)
        constants = np.log(self._arrays.weights) + log_volumes
        stacked = whitening.transpose(2, 1, 0).reshape(size, -1)
        return tuple(array.astype(np.float32) for array in (stacked, offsets.T, constants))

    def log_ratio(self, z: "tf.Tensor") -> "tf.Tensor":
        """Returns log of p(z) / N(z; 0, I), nats: z float32 (n, latent_dim) -> (n,)."""
        import tensorflow as tf

        return tf.reduce_logsumexp(self.log_ratios(z), axis=1)

    def classify(self, mu: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
        """Classifies by p(class | z = mu).

        Args:
            mu: float32 (n, latent_dim).

        Returns:
            The most probable label, uint8 (n,), and its probability, float32 (n,).
        """
        import tensorflow as tf

        ratios = self.log_ratios(mu)
        probabilities = tf.nn.softmax(ratios, axis=1)
        labels = tf.gather(self.labels, tf.argmax(ratios, axis=1))
        return labels, tf.reduce_max(probabilities, axis=1)

    def probability(self, z: "tf.Tensor", labels: "tf.Tensor") -> "tf.Tensor":
        """Returns p(class | z) of one class for each z.

        Args:
            z: float32 (n, latent_dim).
            labels: the classes, which the prior must have, uint8 (n,).

        Returns:
            float32 (n,)
        """
        import tensorflow as tf

        is_class = tf.equal(labels[:, None], self.labels)
        probabilities = tf.nn.softmax(self.log_ratios(z), axis=1)
        return tf.reduce_sum(tf.where(is_class, probabilities, 0.0), axis=1)

    def sample(
        self, noise: "tf.Tensor", uniform: "tf.Tensor", labels: "tf.Tensor | None" = None
    ) -> "tf.Tensor":
        """Samples z.

        Args:
            noise: standard normal, float32 (n, latent_dim); if it is scaled down, z is closer to
                the means of the components.
            uniform: random numbers in [0, 1), float32 (n,), which choose the components.
            labels: the class of each sample, (n,); None: classes are as frequent as in training.

        Returns:
            float32 (n, latent_dim)
        """
        import tensorflow as tf

        which = self._chosen_components(uniform, labels)
        arrays, dimensions = self._arrays, noise.shape[1]
        means = tf.gather(arrays.means.astype(np.float32), which)
        factors = tf.gather(self._factors.astype(np.float32), which)
        moved = means + tf.linalg.matvec(factors, tf.gather(noise, arrays.active, axis=1))
        # Each active dimension takes its new value; all others keep their noise.
        sources = np.arange(dimensions)
        sources[arrays.active] = dimensions + np.arange(len(arrays.active))
        return tf.gather(tf.concat([noise, moved], axis=1), sources, axis=1)

    @property
    def classifies(self) -> bool:
        """Whether there are several classes."""
        return len(self.labels) > 1

    def sample_labels(self, uniform: "tf.Tensor") -> "tf.Tensor":
        """Returns the class of each sample that `sample` returns for the same numbers, uint8 (n,).

        Args:
            uniform: random numbers in [0, 1), float32 (n,).
        """
        import tensorflow as tf

        return tf.gather(self._arrays.labels, self._chosen_components(uniform, None))

    def _chosen_components(self, uniform: "tf.Tensor", labels: "tf.Tensor | None") -> "tf.Tensor":
        """Returns the component of each sample, int32 (n,); arguments: see `sample`."""
        import tensorflow as tf

        ends = np.cumsum(self._arrays.weights)
        first, last = 0, len(ends) - 1
        if labels is not None:
            labels = tf.cast(labels, tf.int32)
            own = self._arrays.labels.astype(np.int32)
            first = tf.searchsorted(own, labels)
            last = tf.searchsorted(own, labels, side="right") - 1
        low, high = tf.gather(ends - self._arrays.weights, first), tf.gather(ends, last)
        place = low + tf.cast(uniform, tf.float64) * (high - low)
        # Rounding must not lead to a component of another class.
        return tf.clip_by_value(tf.searchsorted(ends, place, side="right"), first, last)
