"""What weights are worth: every figure of images one by one, nll, the posterior's summary.

    evaluated = measure.evaluation(vae, seed=0)(images)      # images: uint8 (n, 784)
    measure.means(evaluated)["loss_total"]                   # -ELBO, nats

Nothing here knows files, flags or training.
"""

import numpy as np
import tensorflow as tf

import model
from loop import (
    BINARIZE_STREAM,
    EVALUATION_STREAM,
    NLL_STREAM,
    noise_like,
    pixels,
    sampled_terms,
)

ACTIVE_VARIANCE = 0.01
# More blocks of images than any data set fills: each has noise of its own in `nll`.
_BLOCKS = 128


def binarized(images, seed):
    """Returns one fixed Bernoulli draw of the grey values of uint8 images, as uint8 0 or 255."""
    draws = np.random.default_rng([seed, BINARIZE_STREAM]).random(images.shape, np.float32)
    return np.where(255 * draws < images, np.uint8(255), np.uint8(0))


def evaluation(vae, seed, batch=1000, samples=1):
    """Builds the function that evaluates images one by one.

    Args:
        vae: a `model.VAE`.
        seed: of the noise; with one sample each image's depends on its position, not on `batch`.
        batch: how many images are computed at a time.
        samples: of z for each image; the terms are means over them.

    Returns:
        A function of images, uint8 (n, 784), that returns a dict of float32 (n,) by the names of
        `sampled_terms` plus `RMSE_mean` (z = mu), and `mu` (n, latent_dim). Its further arguments
        `worker` and `workers` leave the other workers' batches at zero.
    """
    drawn = [vae.decoder.latent_dim] if samples == 1 else [samples, vae.decoder.latent_dim]
    batch = max(1, batch // samples)

    @tf.function(reduce_retracing=True)
    def part(images, noise):
        x = pixels(images)
        if samples > 1:
            noise = tf.transpose(noise, [1, 0, 2])
        terms, mu = sampled_terms(vae, x, noise, bound=samples > 1)
        terms = {
            name: tf.reduce_mean(term, axis=0) if term.shape.rank == 2 else term
            for name, term in terms.items()
        }
        terms["RMSE_mean"] = model.rmse(model.loss_l2(x, vae.decode(mu)))
        return terms | {"mu": mu}

    def evaluate(images, worker=0, workers=1):
        evaluated = {}
        if samples == 1:
            noise = noise_like([len(images), *drawn], seed, EVALUATION_STREAM, 0)
        for index, first in enumerate(range(0, len(images), batch)):
            mine, here = index % workers == worker, slice(first, first + batch)
            # The first batch tells the names and shapes to a worker that has none of its own.
            if mine or not evaluated:
                x = tf.constant(images[here])
                # Of many samples for one batch only: all of it would not fit.
                eps = (
                    noise[here]
                    if samples == 1
                    else noise_like([len(x), *drawn], seed, EVALUATION_STREAM, first)
                )
                for name, values in part(x, eps).items():
                    shape = len(images), *values.shape[1:]
                    all_values = evaluated.setdefault(name, np.zeros(shape, np.float32))
                    all_values[here] = mine * values.numpy()
        return evaluated

    return evaluate


def active_units(mu):
    """Returns how many latent dimensions are active: the variance of mu over images, mu
    (n, latent_dim), is above 0.01 (Burda, Grosse and Salakhutdinov 2016, section 5.2)."""
    return int((mu.var(axis=0) > ACTIVE_VARIANCE).sum())


def means(evaluated):
    """Means over images of what `evaluation` returned, as floats; `mu` is left out."""
    return {
        name: float(np.mean(values, dtype=np.float64))
        for name, values in evaluated.items()
        if name != "mu"
    }


def posterior(vae, images, batch=1000):
    """Summarizes q(z | x) over images.

    Returns:
        dict of lists, one number a latent dimension: `mu_mean` and `mu_std` (of mu over images)
        and `KLD` (nats, mean over images).
    """

    @tf.function(reduce_retracing=True)
    def part(images):
        mu, log_var = vae.encode(pixels(images))
        mu = tf.cast(mu, tf.float64)
        kld = tf.cast(model.kld_per_unit(tf.cast(mu, tf.float32), log_var), tf.float64)
        return tf.stack([tf.reduce_sum(v, axis=0) for v in (mu, tf.square(mu), kld)])

    total = sum(
        part(tf.constant(images[i : i + batch])).numpy() for i in range(0, len(images), batch)
    )
    mean, square, kld = total / len(images)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return {"mu_mean": mean.tolist(), "mu_std": std.tolist(), "KLD": kld.tolist()}


def nll(vae, images, samples, seed, done=None, chunk=10, block=10_000):
    """Estimates -log p(x) of each image by importance sampling, in constant memory.

    -log of the mean over z ~ q(z | x) of p(x, z) / q(z | x) (Burda, Grosse and Salakhutdinov
    2016, eq. 8). Its expectation lies above the truth and falls towards it with `samples`.

    Args:
        images: uint8 (n, 784), 0 or 255.
        samples: of z for each image.
        seed: of the noise; that of a sample depends on its number and the image's position.
        done: a function of the share that is computed, called in between; None: no report.
        chunk: samples a compiled call; the result does not depend on it.
        block: images at a time.

    Returns:
        float64 (n,), nats.
    """

    @tf.function(jit_compile=True)
    def compiled(x, mu, log_var, noise, total, count):
        def add(i, total):
            z = vae.reparameterize(mu, log_var, noise[i])
            bce = model.loss_bce(x, vae.decode(z))
            weight = model.log_weights(bce[None], mu, log_var, noise[i][None])[0]
            # One by one: the order of additions is that of the samples, whatever the chunk.
            total = tf.reduce_logsumexp([total, tf.cast(weight, tf.float64)], axis=0)
            return i + 1, total

        return tf.while_loop(lambda i, _: i < count, add, (tf.constant(0), total))[1]

    @tf.function
    def draws(first, part, count):
        return tf.map_fn(
            lambda i: noise_like(
                [count, vae.decoder.latent_dim], seed, NLL_STREAM, _BLOCKS * i + part
            ),
            first + tf.range(chunk),
            fn_output_signature=tf.float32,
        )

    found = []
    for part, start in enumerate(range(0, len(images), block)):
        x = pixels(images[start : start + block])
        mu, log_var = vae.encode(x)
        total = tf.fill([len(x)], tf.constant(-np.inf, tf.float64))
        for first in range(0, samples, chunk):
            noise = draws(tf.constant(first), tf.constant(part), len(x))
            total = compiled(x, mu, log_var, noise, total, tf.constant(min(chunk, samples - first)))
            if done:
                done((start + len(x) * min(1, (first + chunk) / samples)) / len(images))
        found.append(np.log(samples) - total.numpy())
    return np.concatenate(found)
