"""The fitted prior: one Gaussian mixture a digit, where the encoder really puts the images.

    arrays, told = prior.fit(known, labels, validation, seed)     # by scikit-learn
    fitted = prior.Mixture(arrays)                                # without it
    z = fitted.draw(noise, uniform)

The ELBO is trained with N(0, I), which has mass where no training image lies: decoded, that looks
like no digit. A density fitted afterwards to samples of q(z | x) does without it (Ghosh et al.,
"From Variational to Deterministic Autoencoders", 2020: ex-post density estimation). It is the only
place where training looks at labels. Latent dimensions that hold nothing stay N(0, 1).

`prior.npz` holds, for M components on A active dimensions: `active` (A,), ascending; `labels` (M,),
ascending, the digit of each; `weights` (M,), which sum to 1; `means` (M, A) and `covariances`
(M, A, A).
"""

import itertools
import warnings

import numpy as np

from support import files

ACTIVE_VARIANCE = 0.01
# More components a digit gain on training images and lose on validation images.
COMPONENTS = 10
# An image more for each dimension leaves no covariance to chance.
IMAGES_A_DIMENSION = 10
RIDGE, ROUNDS = 1e-3, 20
# So that every mean and covariance stays in the range that readers accept.
FARTHEST, CLASSES, LARGEST, LEAST_SPREAD = 900.0, 256, 1e6, 1e-3


def active_units(mu):
    """Returns which latent dimensions are active, ascending: the variance of mu over images, mu
    (n, latent_dim), is above 0.01 (Burda, Grosse and Salakhutdinov 2016, section 5.2)."""
    return np.flatnonzero(mu.var(axis=0) > ACTIVE_VARIANCE)


def fit(known, labels, validation, seed, between=lambda: None):
    """Fits the mixtures, to the same bits whatever the number of threads.

    Args:
        known: `mu` and `log_var` of the training images, each (n, latent_dim).
        labels: of them, uint8 (n,).
        validation: `mu` and `log_var` of other images, to judge by.
        seed: of the fit, and of the samples of q(z | x), one an image.
        between: a function that is called before each digit; None: none is.

    Returns:
        The arrays of `prior.npz`, or None where N(0, I) is as good; and a dict for `run.json`:
        `gain`, the nats by which log p(z) exceeds that under N(0, I), a mean over the validation
        images and one z each, or None where nothing was fitted; and `why`, which says why there is
        no fitted prior, or is empty.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    active = active_units(known[0])
    digits, counts = np.unique(labels, return_counts=True)
    if not len(active):
        return None, {"gain": None, "why": "no latent dimension is active"}
    if counts.min() < 2:
        why = f"only one training image has the label {digits[counts.argmin()]}"
        return None, {"gain": None, "why": why}
    random = np.random.default_rng(seed)
    z, other = (_sampled(*part, random) for part in (known, validation))
    if not np.abs(z).max() < FARTHEST:
        return None, {"gain": None, "why": f"z reaches beyond {FARTHEST:g}"}
    mixtures = []
    with threadpool_limits(1), warnings.catch_warnings():
        # So few rounds are meant: the validation images gain nothing from more.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for digit, count in zip(digits, counts, strict=True):
            between()
            most = count // (IMAGES_A_DIMENSION * (len(active) + 1))
            mixture = GaussianMixture(
                n_components=int(np.clip(most, 1, COMPONENTS)),
                reg_covar=RIDGE,
                max_iter=ROUNDS,
                init_params="k-means++",
                random_state=seed,
            )
            mixtures.append(mixture.fit(z[labels == digit][:, active].astype(np.float64)))
    components = [len(mixture.weights_) for mixture in mixtures]
    arrays = {"active": np.asarray(active, np.int64), "labels": np.repeat(digits, components)}
    for name in ("weights", "means", "covariances"):
        arrays[name] = np.concatenate([getattr(mixture, f"{name}_") for mixture in mixtures])
    arrays["weights"] *= np.repeat(counts / len(labels), components)
    gain = float(np.mean(Mixture(arrays).log_ratio(other)))
    if not gain > 0:
        why = "N(0, I) is as good for the validation images"
        return None, {"gain": gain if np.isfinite(gain) else None, "why": why}
    return arrays, {"gain": gain, "why": ""}


def _sampled(mu, log_var, random):
    """Returns one z of q(z | x) for each image, float32 (n, latent_dim)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return mu + np.exp(0.5 * log_var) * random.standard_normal(mu.shape, np.float32)


def read(file, what, latent_dim):
    """Reads `prior.npz` from an open file and checks it.

    Args:
        what: the file's name, for messages.
        latent_dim: size of the z that it must be a prior of.

    Returns:
        The arrays, as `Mixture` takes them.

    Raises:
        UserError: the arrays are damaged, or no prior of such a z.
    """
    ranks = {"active": 1, "labels": 1, "weights": 1, "means": 2, "covariances": 3}
    types = dict.fromkeys(ranks, "<f8") | {"active": "<i8", "labels": "|u1"}

    def accepts(name):
        return lambda shape, dtype: len(shape) == ranks[name] and dtype.str == types[name]

    arrays = files.read_npz(file, what, {name: accepts(name) for name in ranks})
    active, weights, covariances = (arrays[name] for name in ("active", "weights", "covariances"))
    a, m = len(active), len(weights)
    with files.damage(what):
        if not 1 <= a <= latent_dim or not 1 <= m <= COMPONENTS * CLASSES:
            raise ValueError(f"{m} components of {a} dimensions")
        shapes = [arrays[name].shape for name in ("labels", "means", "covariances")]
        if shapes != [(m,), (m, a), (m, a, a)]:
            raise ValueError("shapes that disagree")
        if active[0] < 0 or active[-1] >= latent_dim or (np.diff(active) <= 0).any():
            raise ValueError("dimensions out of order or range")
        if (np.diff(arrays["labels"].astype(int)) < 0).any():
            raise ValueError("labels out of order")
        if not all(np.abs(array).max() < LARGEST for array in arrays.values()):
            raise ValueError("numbers too large or not finite")
        if weights.min() <= 0 or abs(weights.sum() - 1) > 1e-6:
            raise ValueError("weights that are not positive or do not sum to 1")
        if not np.allclose(covariances, covariances.swapaxes(1, 2), rtol=1e-6, atol=1e-9):
            raise ValueError("covariances that are not symmetric")
        # Raises where one is not positive definite.
        factors = np.linalg.cholesky(covariances)
        if factors.diagonal(axis1=1, axis2=2).min() < LEAST_SPREAD:
            raise ValueError("covariances that are next to nothing")
    return arrays


class Mixture:
    """A mixture of Gaussians over z.

    Args:
        arrays: those of `prior.npz`, as `fit` and `read` return them.

    Attributes:
        digits: the labels it has components of, ascending, uint8 (C,).
        gaussians: the components, tuples (digit, mean (A,), covariance (A, A)).
    """

    def __init__(self, arrays):
        self.digits = np.unique(arrays["labels"])
        self._active, self._labels = arrays["active"], arrays["labels"]
        self._weights, self._means = arrays["weights"], arrays["means"]
        self._factors = np.linalg.cholesky(arrays["covariances"])
        columns = self._labels, self._means, arrays["covariances"]
        self.gaussians = list(zip(*columns, strict=True))

    def log_ratios(self, z):
        """log of p(z, digit) / N(z; 0, I).

        Args:
            z: float32 (n, latent_dim).

        Returns:
            float32 (n, C), in the order of `digits`.
        """
        import tensorflow as tf

        count, size = self._means.shape
        whitening = np.linalg.inv(self._factors)
        offsets = np.einsum("mij,mj->mi", whitening, self._means)
        constants = np.log(self._weights * whitening.diagonal(axis1=1, axis2=2).prod(axis=1))
        z = tf.gather(z, self._active, axis=1)
        # All components in one product: (n, A) by (A, M * A).
        stacked = whitening.transpose(2, 0, 1).reshape(size, -1).astype(np.float32)
        white = tf.reshape(z @ stacked, [-1, count, size]) - offsets.astype(np.float32)
        distances = tf.reduce_sum(white**2, -1) - tf.reduce_sum(z**2, -1, keepdims=True)
        logs = constants.astype(np.float32) - 0.5 * distances
        ends = np.searchsorted(self._labels, self.digits, "right").tolist()
        parts = itertools.pairwise([0, *ends])
        return tf.stack([tf.reduce_logsumexp(logs[:, a:b], axis=1) for a, b in parts], axis=1)

    def log_ratio(self, z):
        """log of p(z) / N(z; 0, I): z (n, latent_dim) -> (n,), in nats."""
        import tensorflow as tf

        return tf.reduce_logsumexp(self.log_ratios(z), axis=1)

    def named(self, mu):
        """Returns the digits that p(digit | z = mu) names: mu (n, latent_dim) -> uint8 (n,)."""
        import tensorflow as tf

        return tf.gather(self.digits, tf.argmax(self.log_ratios(mu), axis=1))

    def draw(self, noise, uniform, digits=None):
        """Draws z.

        Args:
            noise: standard normal, float32 (n, latent_dim); scaled down, z comes closer to the
                means of the components.
            uniform: draws in [0, 1), float32 (n,), which choose the components.
            digits: what to draw, (n,), of the mixture's own; None: each as often as in training.

        Returns:
            float32 (n, latent_dim)
        """
        import tensorflow as tf

        ends = np.cumsum(self._weights)
        first, last = 0, len(ends) - 1
        if digits is not None:
            digits = tf.cast(digits, tf.int32)
            first = tf.searchsorted(self._labels.astype(np.int32), digits)
            last = tf.searchsorted(self._labels.astype(np.int32), digits, side="right") - 1
        low, high = tf.gather(ends - self._weights, first), tf.gather(ends, last)
        place = low + tf.cast(uniform, tf.float64) * (high - low)
        # Rounding must not lead to the neighbour's components.
        which = tf.clip_by_value(tf.searchsorted(ends, place, side="right"), first, last)
        means = tf.gather(self._means.astype(np.float32), which)
        factors = tf.gather(self._factors.astype(np.float32), which)
        moved = means + tf.linalg.matvec(factors, tf.gather(noise, self._active, axis=1))
        # Each active dimension takes its new value, every other one keeps its noise.
        places = np.arange(noise.shape[1])
        places[self._active] = noise.shape[1] + np.arange(len(self._active))
        return tf.gather(tf.concat([noise, moved], axis=1), places, axis=1)
