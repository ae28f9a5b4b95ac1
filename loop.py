"""The compiled passes over images: windows of training steps, evaluation, the posterior's summary.

Many steps run inside one XLA-compiled loop, since Python between the steps of so small a model
costs as much as their arithmetic. What is random depends on (seed, stream, step, position in the
batch) alone, never on where a window begins or ends. Nothing here knows files or flags.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import model

# One number a purpose: no two of them ever share a random draw.
TRAIN_STREAM, EVALUATION_STREAM, GENERATION_STREAM = 1, 2, 3
BINARIZE_STREAM, NLL_STREAM, WARP_STREAM = 4, 5, 6
ROW = ("objective", "loss_total", "loss_bce", "loss_KLD", "loss_l2", "RMSE")
ACTIVE_VARIANCE = 0.01
# Bounds of a window: what its noise may weigh, and what two cores compute in about half a second.
NOISE_BYTES = 64 * 2**20
WINDOW_FLOPS = 60e9
# Radians, shares and pixels, in the order of `warped`.
WARP_LIMITS = (math.radians(5), 0.05, 0.05, 0.05, 0.5, 0.5)
# More blocks of images than any data set fills: each has noise of its own in `nll`.
_BLOCKS = 128


class Objective(NamedTuple):
    """What a run minimizes: `recon_loss` and `beta` as `model.objective` takes them.

    `samples` is the K of the importance-weighted bound, 1 the plain ELBO. `warp`, a number or a
    function of the step, is the share of images that are `warped`; `binarize` trains on Bernoulli
    draws of the grey values. Both are drawn anew in each step.
    """

    recon_loss: str = "bce"
    beta: float = 1.0
    samples: int = 1
    warp: float | Callable = 0.0
    binarize: bool = False


ELBO = Objective()


def window_size(vae, batch, objective=ELBO):
    """Returns how many steps fit one window: a function of sizes alone, the same on any machine."""
    encoder, decoder = (
        sum(int(tf.size(weight)) for weight in part.trainable_variables)
        for part in (vae.encoder, vae.decoder)
    )
    flops = 6 * batch * (encoder + objective.samples * decoder)
    of_images = bool(objective.warp) + objective.binarize
    drawn = objective.samples * latent_dim_of(vae) + of_images * model.PIXELS
    return int(max(1, min(NOISE_BYTES // (4 * batch * drawn), WINDOW_FLOPS // flops)))


def latent_dim_of(vae):
    """Returns the size of z."""
    return vae.decoder.hidden[0].kernel.shape[0]


def noise_like(shape, seed, stream, step, draw=tf.random.stateless_normal):
    """Returns standard normal noise of one (seed, stream, step).

    Args:
        draw: `tf.random.stateless_uniform` for numbers in [0, 1) instead.
    """
    # Folding keeps the whole seed; stateless draws take two integers.
    key = tf.random.experimental.stateless_fold_in(tf.stack([seed, stream]), step)
    return draw(shape, key)


def warped(images, share, uniform):
    """Turns, stretches, shears and moves images a little, as another hand would have written.

    By at most 5 degrees, 5 % each way, 5 % and half a pixel, about the middle of the image.

    Args:
        images: float32 (n, 784).
        share: of the images that are warped; the others stay as they are.
        uniform: draws in [0, 1), (n, 7).

    Returns:
        float32 (n, 784), interpolated linearly; 0 where nothing was.
    """
    chosen = tf.cast(uniform[:, 6] < share, tf.float32)
    angle, across, along, shear, right, down = (
        limit * chosen * (2 * uniform[:, i] - 1) for i, limit in enumerate(WARP_LIMITS)
    )
    a, b = (1 + across) * tf.cos(angle), shear - tf.sin(angle)
    c, d = tf.sin(angle), (1 + along) * tf.cos(angle)
    middle, zero = (model.SIDE - 1) / 2, tf.zeros_like(angle)
    from_left, from_top = middle * (1 - a - b) + right, middle * (1 - c - d) + down
    transforms = tf.stack([a, b, from_left, c, d, from_top, zero, zero], axis=1)
    square = tf.reshape(images, [-1, model.SIDE, model.SIDE, 1])
    return tf.reshape(
        keras.ops.image.affine_transform(square, transforms, data_format="channels_last"),
        tf.shape(images),
    )


def binarized(images, seed):
    """Returns one fixed Bernoulli draw of the grey values of uint8 images, as uint8 0 or 255."""
    draws = np.random.default_rng([seed, BINARIZE_STREAM]).random(images.shape, np.float32)
    return np.where(255 * draws < images, np.uint8(255), np.uint8(0))


def pixels(images):
    """uint8 images as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) * (1 / 255)


def as_digits(logits):
    """Logits as uint8 images."""
    return tf.cast(tf.round(255.0 * tf.sigmoid(logits)), tf.uint8)


def sampled_terms(vae, images, noise):
    """The terms of the loss for images (n, 784) in [0, 1] and noise (n, latent_dim).

    Returns:
        `model.loss_terms`. With noise (k, n, latent_dim) they are (k, n), and `loss_importance`,
        the negative k-sample bound, is (n,).
    """
    mu, log_var, logits = vae(images, noise)
    terms = model.loss_terms(images, mu, log_var, logits)
    if noise.shape.rank == 3:
        weights = model.log_weights(terms["loss_bce"], mu, log_var, noise)
        terms["loss_importance"] = model.loss_importance(weights)
    return terms


def gradients(vae, images, noise, objective=ELBO, variance=None):
    """Loss terms and gradients of one batch, or of one replica's part of it.

    Args:
        images: float32 (batch, 784) in [0, 1].
        noise: (batch, latent_dim), or (k, batch, latent_dim) for the k-sample bound.
        variance: as `model.objective` takes it.

    Returns:
        The means over the batch of `ROW`, (6,), and the gradients of the first of them.
    """
    with tf.GradientTape() as tape:
        terms = sampled_terms(vae, images, noise)
        minimized = model.objective(terms, objective.recon_loss, objective.beta, variance)
    row = tf.stack([minimized, *(tf.reduce_mean(terms[name]) for name in ROW[1:])])
    return row, tape.gradient(minimized, vae.trainable_variables)


def replica_step(vae, optimizer, objective, local):
    """Builds what one replica does in a step: a function of the global batch and its noise.

    Args:
        local: images of a step that are this replica's.

    Returns:
        A function, to be called by a strategy, of images (batch, 784) and noise as `gradients`
        takes them, that trains and returns the means of `ROW` over this replica's images.
    """

    @tf.function(jit_compile=True)
    def own_variance(images, noise):
        return model.optimal_variance(sampled_terms(vae, images, noise)["loss_l2"])

    @tf.function(jit_compile=True)
    def own_gradients(images, noise, variance):
        return gradients(vae, images, noise, objective, variance)

    def step(images, noise):
        replica = tf.distribute.get_replica_context()
        first = local * replica.replica_id_in_sync_group
        images, noise = images[first : first + local], noise[..., first : first + local, :]
        variance = tf.zeros([])
        if objective.recon_loss == "gaussian":
            # Of the global batch: reduced before it is used.
            variance = replica.all_reduce("MEAN", own_variance(images, noise))
        row, grads = own_gradients(images, noise, variance)
        # Keras adds up the replicas' gradients: of means, that is their number too much.
        grads = [grad / replica.num_replicas_in_sync for grad in grads]
        optimizer.apply_gradients(zip(grads, vae.trainable_variables, strict=True))
        return row

    return step


def training_window(vae, optimizer, images, batch, seed, objective=ELBO, size=None, team=None):
    """Builds the function that trains through a window of consecutive steps.

    Args:
        vae, optimizer: both built; the optimizer's `iterations` counts the steps.
        images: uint8 (n, 784), all training images; they stay resident.
        batch: images a step.
        objective: an `Objective`.
        size: steps of the longest window; None: `window_size`.
        team: a `cluster.Team` under whose strategy both were built, whose replicas share out each
            batch; None: one device, and the whole window compiled as one.

    Returns:
        A function of indices, int32 (steps, batch) with steps at most `size`, that trains and
        returns the means of `ROW` in each step, float32 (steps, 6).
    """
    size = size or window_size(vae, batch, objective)
    drawn = [batch, latent_dim_of(vae)]
    if objective.samples > 1:
        drawn = [objective.samples, *drawn]
    variables = vae.trainable_variables
    images = tf.constant(images)

    def loop(train, images, indices, noise, warps, levels, steps):
        def step(i, rows):
            x = warps[i] if objective.warp else pixels(tf.gather(images, indices[i]))
            if objective.binarize:
                x = tf.cast(levels[i] < x, tf.float32)
            return i + 1, tf.tensor_scatter_nd_update(rows, [[i]], [train(x, noise[i])])

        start = (tf.constant(0), tf.zeros([size, len(ROW)]))
        return tf.while_loop(lambda i, _: i < steps, step, start)[1]

    @tf.function(jit_compile=True)
    def compiled(*inputs):
        def train(x, noise):
            row, grads = gradients(vae, x, noise, objective)
            optimizer.apply_gradients(zip(grads, variables, strict=True))
            return row

        return loop(train, *inputs)

    def shared_out(*inputs):
        step = replica_step(vae, optimizer, objective, batch // team.replicas)

        def train(x, noise):
            rows = team.strategy.experimental_local_results(team.strategy.run(step, (x, noise)))
            return tf.add_n(rows) / team.replicas

        return loop(train, *inputs)

    @tf.function(
        input_signature=[tf.TensorSpec([size, batch], tf.int32), tf.TensorSpec([], tf.int32)]
    )
    def window(indices, steps):
        # The same stateless call gives other numbers inside XLA, so noise is drawn out here.
        first = tf.cast(optimizer.iterations, tf.int32)
        each = first + tf.range(size)

        def drawn_in_each(function):
            return tf.map_fn(function, each, fn_output_signature=tf.float32)

        def uniform(shape, stream):
            draw = tf.random.stateless_uniform
            return drawn_in_each(lambda step: noise_like(shape, seed, stream, step, draw))

        noise = drawn_in_each(lambda step: noise_like(drawn, seed, TRAIN_STREAM, step))
        warps = levels = tf.zeros([])
        if objective.warp:
            share = drawn_in_each(objective.warp) if callable(objective.warp) else objective.warp
            draws = tf.reshape(uniform([batch, 7], WARP_STREAM), [-1, 7])
            flat = pixels(tf.gather(images, tf.reshape(indices, [-1])))
            share = tf.repeat(share * tf.ones([size]), batch)
            warps = tf.reshape(warped(flat, share, draws), [size, batch, model.PIXELS])
        if objective.binarize:
            levels = uniform([batch, model.PIXELS], BINARIZE_STREAM)
        through = shared_out if team and team.strategy else compiled
        return through(images, indices, noise, warps, levels, steps)

    def run(indices):
        steps = len(indices)
        # One static shape: a window compiled for another length would give other bits.
        padded = np.zeros((size, batch), np.int32)
        padded[:steps] = indices
        rows = window(tf.constant(padded), tf.constant(steps)).numpy()[:steps]
        return team.total(rows) if team else rows

    run.size = size
    return run


def evaluation(vae, seed, batch=1000, samples=1):
    """Builds the function that evaluates images one by one.

    Args:
        vae: a `model.VAE`.
        seed: of the noise; each image's depends on its position, not on `batch`.
        batch: how many images are computed at a time.
        samples: of z for each image; the terms are means over them.

    Returns:
        A function of images, uint8 (n, 784), that returns a dict of float32 (n,) by the names of
        `sampled_terms` plus `RMSE_mean` (z = mu), and `mu` (n, latent_dim). Its further arguments
        `worker` and `workers` leave the other workers' batches at zero.
    """
    drawn = [latent_dim_of(vae)] if samples == 1 else [samples, latent_dim_of(vae)]
    batch = max(1, batch // samples)

    @tf.function(reduce_retracing=True)
    def part(images, noise):
        x = pixels(images)
        if samples > 1:
            noise = tf.transpose(noise, [1, 0, 2])
        terms = sampled_terms(vae, x, noise)
        terms = {
            name: tf.reduce_mean(term, axis=0) if term.shape.rank == 2 else term
            for name, term in terms.items()
        }
        mu, _ = vae.encode(x)
        terms["RMSE_mean"] = model.rmse(model.loss_l2(x, vae.decode(mu)))
        return terms | {"mu": mu}

    def evaluate(images, worker=0, workers=1):
        noise = noise_like([len(images), *drawn], seed, EVALUATION_STREAM, 0)
        evaluated = {}
        for index, first in enumerate(range(0, len(images), batch)):
            mine, here = index % workers == worker, slice(first, first + batch)
            # The first batch tells the names and shapes to a worker that has none of its own.
            if mine or not evaluated:
                for name, values in part(tf.constant(images[here]), noise[here]).items():
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
            lambda i: noise_like([count, latent_dim_of(vae)], seed, NLL_STREAM, _BLOCKS * i + part),
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
