"""What weights are worth: every figure image by image, nll, the posterior's summary.

    figures = evaluation.evaluator(vae, seed=0)(images)    # images: uint8 (n, 784)
    evaluation.means(figures)["loss_total"]                # -ELBO, nats

Nothing here knows files, flags or training.
"""

import numpy as np
import tensorflow as tf

import model
from data import pixels
from support import prior, window

# More blocks of images than any data set fills: each has noise of its own in `nll`.
_BLOCKS = 128


def binarized(images, seed):
    """Returns one fixed Bernoulli draw of the grey values of uint8 images, as uint8 0 or 255."""
    draws = np.random.default_rng([seed, window.BINARIZE_STREAM]).random(images.shape, np.float32)
    return np.where(255 * draws < images, np.uint8(255), np.uint8(0))


def as_digits(logits):
    """Logits as uint8 images."""
    return tf.cast(tf.round(255.0 * tf.sigmoid(logits)), tf.uint8)


def evaluator(vae, seed, batch=1000, fitted=None):
    """Builds the function that evaluates images one by one; built once, it is traced once.

    Args:
        vae: a `model.VAE`.
        seed: of the noise; each image's depends on its position, not on `batch`.
        batch: how many images are computed at a time.
        fitted: the `prior.Mixture` of these weights; None: there is none.

    Returns:
        A function of images, uint8 (n, 784), that returns a dict of float32 (n,) by the names in
        `model.TERMS` plus `RMSE_mean` (z = mu), and `mu` (n, latent_dim); with `fitted` also
        `loss_total_fitted`, the -ELBO under that prior, and `named`, the digits it names, uint8.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def part(images, drawn):
        x = pixels(images)
        mu, log_var = vae.encode(x)
        z = model.reparameterize(mu, log_var, drawn)
        terms = model.loss_terms(x, mu, log_var, vae.decode(z))
        if fitted:
            terms["loss_total_fitted"] = terms["loss_total"] - fitted.log_ratio(z)
            terms["named"] = fitted.named(mu)
        return terms | {"RMSE_mean": model.rmse(model.loss_l2(x, vae.decode(mu))), "mu": mu}

    def evaluate(images):
        drawn = window.normal([len(images), vae.latent_dim], seed, window.EVALUATION_STREAM, 0)
        parts = [
            part(tf.constant(images[i : i + batch]), drawn[i : i + batch])
            for i in range(0, len(images), batch)
        ]
        return {name: np.concatenate([found[name] for found in parts]) for name in parts[0]}

    return evaluate


def pictures(vae, images, seed, rows=4, columns=10):
    """Returns digits that form before one's eyes: the same images, the same draws of the prior.

    Args:
        images: uint8 (n, 784), of which the first few are taken.

    Returns:
        dict of uint8 (rows, columns, 784): `reconstructions`, rows of originals each above the row
        of its reconstructions, and `prior_draws`.
    """
    columns = min(columns, len(images))
    images = images[: min(rows, len(images) // columns) * columns]
    mu, _ = vae.encode(pixels(images))
    drawn = window.normal(mu.shape, seed, window.GENERATION_STREAM, 0)
    originals, decoded, generated = (
        np.reshape(array, (-1, columns, images.shape[1]))
        for array in (images, as_digits(vae.decode(mu)), as_digits(vae.decode(drawn)))
    )
    pairs = np.stack([originals, decoded], axis=1).reshape(-1, columns, images.shape[1])
    return {"reconstructions": pairs, "prior_draws": generated}


def means(figures):
    """Means over images of what `evaluator` returned, as floats, without `mu` and `named`."""
    return {
        name: float(np.mean(values, dtype=np.float64))
        for name, values in figures.items()
        if name not in ("mu", "named")
    }


def curves(figures, recon_loss, beta):
    """Returns the validation curves' points, a dict by tag, of what `evaluator` returned.

    Args:
        recon_loss, beta: as `model.objective` takes them.
    """
    found = means(figures)
    points = {name: found[name] for name in model.TERMS}
    points["objective"] = float(model.objective(figures, recon_loss, beta))
    return points | {"active_units": len(prior.active_units(figures["mu"]))}


def encoded(vae, images, batch=1000):
    """Returns q(z | x) of images, uint8 (n, 784): `mu` and `log_var`, float32 (n, latent_dim)."""
    parts = [vae.encode(pixels(images[i : i + batch])) for i in range(0, len(images), batch)]
    return [np.concatenate(both) for both in zip(*parts, strict=True)]


def posterior(mu, log_var):
    """Summarizes q(z | x) over images, of which `encoded` returned `mu` and `log_var`.

    Returns:
        dict of lists, one number a latent dimension: `mu_mean` and `mu_std` (of mu over images)
        and `KLD` (nats, mean over images).
    """
    mu, kld = (np.asarray(a, np.float64) for a in (mu, model.kld_per_unit(mu, log_var)))
    found = {"mu_mean": mu.mean(axis=0), "mu_std": mu.std(axis=0), "KLD": kld.mean(axis=0)}
    return {name: values.tolist() for name, values in found.items()}


def nll(vae, images, samples, seed, fitted=None, done=None, chunk=10, block=10_000):
    """Estimates -log p(x) of each image by importance sampling, in constant memory.

    -log of the mean over z ~ q(z | x) of p(x, z) / q(z | x) (Burda, Grosse and Salakhutdinov
    2016, eq. 8). Its expectation lies above the truth and falls towards it with `samples`.

    Args:
        images: uint8 (n, 784), 0 or 255.
        samples: of z for each image.
        seed: of the noise; that of a sample depends on its number and the image's position.
        fitted: the `prior.Mixture` of these weights; None: there is none.
        done: a function of the share that is computed, called in between; None: no report.
        chunk: samples a compiled call; the result does not depend on it.
        block: images at a time.

    Returns:
        dict of float64 (n,), nats: `nll` under the prior N(0, I) and, with `fitted`, `nll_fitted`
        under that one, of the same samples.
    """

    @tf.function(jit_compile=True, autograph=False)
    def compiled(x, mu, log_var, drawn, total, count):
        def add(i, total):
            z = model.reparameterize(mu, log_var, drawn[i])
            bce = model.loss_bce(x, vae.decode(z))
            weights = [model.log_weights(bce[None], mu, log_var, drawn[i][None])[0]]
            if fitted:
                weights.append(weights[0] + fitted.log_ratio(z))
            # One by one: the order of additions is that of the samples, whatever the chunk.
            total = tf.reduce_logsumexp([total, tf.cast(weights, tf.float64)], axis=0)
            return i + 1, total

        return tf.while_loop(lambda i, _: i < count, add, (tf.constant(0), total))[1]

    @tf.function(autograph=False)
    def draws(first, part, count):
        def one(i):
            place = _BLOCKS * i + part
            return window.normal([count, vae.latent_dim], seed, window.NLL_STREAM, place)

        return tf.map_fn(one, first + tf.range(chunk), fn_output_signature=tf.float32)

    found = []
    for part, start in enumerate(range(0, len(images), block)):
        x = pixels(images[start : start + block])
        mu, log_var = vae.encode(x)
        total = tf.fill([2 if fitted else 1, len(x)], tf.constant(-np.inf, tf.float64))
        for first in range(0, samples, chunk):
            drawn = draws(tf.constant(first), tf.constant(part), len(x))
            count = tf.constant(min(chunk, samples - first))
            total = compiled(x, mu, log_var, drawn, total, count)
            if done:
                done((start + len(x) * min(1, (first + chunk) / samples)) / len(images))
        found.append(np.log(samples) - total.numpy())
    return dict(zip(("nll", "nll_fitted"), np.concatenate(found, axis=1), strict=False))
