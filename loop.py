"""The compiled window of training steps, and the draws that it takes.

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
# Bounds of a window: what its noise may weigh, and what two cores compute in about half a second.
NOISE_BYTES = 64 * 2**20
WINDOW_FLOPS = 60e9
# Radians, shares and pixels, in the order of `warped`.
WARP_LIMITS = (math.radians(7.5), 0.075, 0.075, 0.075, 0.75, 0.75)


class Objective(NamedTuple):
    """What a run minimizes: `recon_loss` and `beta` as `model.objective` takes them.

    `elbo_samples` is the L of Kingma and Welling 2014, eq. 7, over which the ELBO is a mean;
    `importance_samples` the K of the importance-weighted bound, 1 the plain ELBO. Both draw z in
    `antithetic` pairs. `warp`, a number or a function of the step, is the share of images that are
    `warped`; `binarize` trains on Bernoulli draws of the grey values: drawn anew in each step.
    """

    recon_loss: str = "bce"
    beta: float = 1.0
    elbo_samples: int = 1
    importance_samples: int = 1
    warp: float | Callable = 0.0
    binarize: bool = False

    @property
    def samples(self):
        """z drawn for each image."""
        return max(self.elbo_samples, self.importance_samples)


ELBO = Objective()


def window_size(vae, batch, objective=ELBO):
    """Returns how many steps fit one window: a function of sizes alone, the same on any machine."""
    encoder, decoder = (
        sum(int(tf.size(weight)) for weight in part.trainable_variables)
        for part in (vae.encoder, vae.decoder)
    )
    flops = 6 * batch * (encoder + objective.samples * decoder)
    of_images = bool(objective.warp) + objective.binarize
    drawn = objective.samples * vae.decoder.latent_dim + of_images * model.PIXELS
    return int(max(1, min(NOISE_BYTES // (4 * batch * drawn), WINDOW_FLOPS // flops)))


def noise_like(shape, seed, stream, step, draw=tf.random.stateless_normal):
    """Returns standard normal noise of one (seed, stream, step).

    Args:
        draw: `tf.random.stateless_uniform` for numbers in [0, 1) instead.
    """
    # Folding keeps the whole seed; stateless draws take two integers.
    key = tf.random.experimental.stateless_fold_in(tf.stack([seed, stream]), step)
    return draw(shape, key)


def antithetic(noise, count):
    """Returns `count` draws of noise, half of which are the negatives of the other half.

    Each is as normal as before, and what is linear in the noise cancels in the mean over a pair
    (Hammersley and Morton 1956): the gradient varies less than with independent draws. The mean of
    importance weights needs no independence to be unbiased, so its logarithm stays a bound.

    Args:
        noise: (half of count, rounded up, ...).
    """
    return tf.concat([noise, -noise], axis=0)[:count]


def warped(images, share, uniform):
    """Turns, stretches, shears and moves images a little, as another hand would have written.

    By at most 7.5 degrees, 7.5 % each way, 7.5 % and 0.75 pixels, about the middle of the image.

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


def pixels(images):
    """uint8 images as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) * (1 / 255)


def as_digits(logits):
    """Logits as uint8 images."""
    return tf.cast(tf.round(255.0 * tf.sigmoid(logits)), tf.uint8)


def sampled_terms(vae, images, noise, bound=False):
    """The terms of the loss for images (n, 784) in [0, 1] and noise (n, latent_dim).

    Returns:
        `model.loss_terms`. With noise (k, n, latent_dim) they are (k, n), and with `bound` there
        is `loss_importance` too, the negative k-sample bound, (n,). And mu, (n, latent_dim).
    """
    mu, log_var, logits = vae(images, noise)
    terms = model.loss_terms(images, mu, log_var, logits)
    if bound:
        weights = model.log_weights(terms["loss_bce"], mu, log_var, noise)
        terms["loss_importance"] = model.loss_importance(weights)
    return terms, mu


def gradients(vae, images, noise, objective=ELBO, variance=None):
    """Loss terms and gradients of one batch, or of one replica's part of it.

    Args:
        images: float32 (batch, 784) in [0, 1].
        noise: (batch, latent_dim), or (k, batch, latent_dim) for `objective.samples` k above 1.
        variance: as `model.objective` takes it.

    Returns:
        The means over the batch of `ROW`, (6,), and the gradients of the first of them.
    """
    with tf.GradientTape() as tape:
        terms, _ = sampled_terms(vae, images, noise, objective.importance_samples > 1)
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
        terms, _ = sampled_terms(vae, images, noise)
        return model.optimal_variance(terms["loss_l2"])

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
    drawn = [batch, vae.decoder.latent_dim]
    if objective.samples > 1:
        drawn = [math.ceil(objective.samples / 2), *drawn]
    variables = vae.trainable_variables
    images = tf.constant(images)

    def loop(train, images, indices, noise, warps, levels, steps):
        def step(i, rows):
            x = warps[i] if objective.warp else pixels(tf.gather(images, indices[i]))
            if objective.binarize:
                x = tf.cast(levels[i] < x, tf.float32)
            eps = noise[i]
            if objective.samples > 1:
                eps = antithetic(eps, objective.samples)
            return i + 1, tf.tensor_scatter_nd_update(rows, [[i]], [train(x, eps)])

        start = (tf.constant(0), tf.zeros([size, len(ROW)]))
        return tf.while_loop(lambda i, _: i < steps, step, start)[1]

    @tf.function(jit_compile=True)
    def compiled(*inputs):
        def train(x, noise):
            row, grads = gradients(vae, x, noise, objective)
            # A kernel updated before its last use is copied, in every step: so none is updated
            # before the gradient that comes last, that of the first layer's bias.
            last = 0.0 * grads[1][0]
            grads = [grad + last for grad in grads]
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
