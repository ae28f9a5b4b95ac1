"""The window: any training step, compiled into one XLA loop over many steps; the random draws.

Python between the steps of so small a model costs as much as their arithmetic, so many steps run
in one call. What is random depends on (seed, stream, step, position in the batch) alone, never on
where a window begins or ends. Nothing here knows what a step computes.

    draw = window.inputs(images, seed, latent_dim=128, samples=2)
    run = window.compiled(step, update, ("loss",), draw, optimizer.iterations, size=50, batch=100)
    run(indices)["loss"]           # indices: int32 (steps, batch), steps <= 50
"""

import math

import numpy as np
import tensorflow as tf

import data

# One number a purpose: no two of them share a draw of TensorFlow's.
TRAIN_STREAM, EVALUATION_STREAM, GENERATION_STREAM = 1, 2, 3
BINARIZE_STREAM, NLL_STREAM, WARP_STREAM, PRIOR_STREAM = 4, 5, 6, 7
# Bounds of a window: what its inputs may weigh, and what two cores compute in half a second.
INPUT_BYTES = 64 * 2**20
WINDOW_FLOPS = 60e9


def normal(shape, seed, stream, step):
    """Returns standard normal noise, float32, a function of (seed, stream, step)."""
    return tf.random.stateless_normal(shape, _key(seed, stream, step))


def uniform(shape, seed, stream, step):
    """Returns the same in [0, 1), uniformly."""
    return tf.random.stateless_uniform(shape, _key(seed, stream, step))


def _key(seed, stream, step):
    # Folding keeps the whole seed; stateless draws take two integers.
    return tf.random.experimental.stateless_fold_in(tf.stack([seed, stream]), step)


def size(vae, batch, samples):
    """Returns how many steps a window has: a function of sizes alone, the same on any machine.

    Args:
        vae: a `model.VAE`.
        batch: images a step.
        samples: z drawn for each image.
    """
    weights = vae.encoder.count_params() + samples * vae.decoder.count_params()
    floats = 2 * data.PIXELS + samples * vae.latent_dim
    most = min(INPUT_BYTES // (4 * batch * floats), WINDOW_FLOPS // (6 * batch * weights))
    return int(max(1, most))


def inputs(images, seed, latent_dim, samples=1, warp=0.0, share=lambda step: 1.0, binarize=False):
    """Builds the function that gathers and draws what the steps of a window take.

    Args:
        images: uint8 (n, 784), all training images; they stay resident.
        samples: z drawn for each image, in antithetic pairs.
        warp: the `push` of `data.warped`, in pixels; 0: no warps.
        share: of the images that are warped, a function of the step.
        binarize: whether images are Bernoulli draws of their grey values, fresh in each step.

    Returns:
        A function of indices (steps, batch) and the steps' numbers (steps,) that returns images,
        float32 (steps, batch, 784), and noise, (steps, samples, batch, latent_dim).
    """
    images = tf.constant(images)
    warped = tf.function(data.warped, jit_compile=True, autograph=False)

    def draw(indices, numbers):
        def in_each(function):
            return tf.map_fn(function, numbers, fn_output_signature=tf.float32)

        def uniforms(width, stream):
            return in_each(lambda step: uniform([batch, width], seed, stream, step))

        def noise(step):
            # Antithetic pairs (Hammersley and Morton 1956): half of the draws are the negatives of
            # the others. What is linear in the noise cancels in a pair: the gradient varies less.
            shape = [math.ceil(samples / 2), batch, latent_dim]
            drawn = normal(shape, seed, TRAIN_STREAM, step)
            return tf.concat([drawn, -drawn], axis=0)[:samples]

        steps, batch = indices.shape
        x = data.pixels(tf.gather(images, tf.reshape(indices, [-1])))
        if warp:
            draws = tf.reshape(uniforms(data.WARP_DRAWS, WARP_STREAM), [-1, data.WARP_DRAWS])
            x = warped(x, warp, tf.repeat(in_each(share), batch), draws)
        x = tf.reshape(x, [steps, batch, data.PIXELS])
        if binarize:
            x = tf.cast(uniforms(data.PIXELS, BINARIZE_STREAM) < x, tf.float32)
        return x, in_each(noise)

    return draw


def compiled(loss_and_gradients, update, names, draw, step, size, batch, team=None):
    """Builds the function that trains through a window of consecutive steps.

    Args:
        loss_and_gradients: function of images (batch, 784), noise and the number of steps done
            before that returns a dict of terms and a list of gradients, of the mean over the batch.
        update: function of such gradients that changes the weights.
        names: of the terms whose means are returned.
        draw: as `inputs` returns it.
        step: a variable that counts the updates.
        size: steps of the longest window.
        batch: images a step.
        team: a `team.Team` whose replicas share out each batch; None: one device, and the whole
            window compiled as one.

    Returns:
        A function of indices, int32 (steps, batch) with steps at most `size`, that trains and
        returns the mean of each term in each step: a dict of float64 (steps,).
    """

    def row(terms):
        return tf.stack([tf.reduce_mean(terms[name]) for name in names])

    def on_one_device(images, noise, done):
        terms, gradients = loss_and_gradients(images, noise, done)
        # A kernel updated before its last use is copied, in every step: so none is updated
        # before the gradient that comes last, that of the first layer's bias.
        last = 0.0 * gradients[1][0]
        update([gradient + last for gradient in gradients])
        return row(terms)

    # Under a strategy XLA can compile no update across devices, so the arithmetic alone.
    arithmetic = tf.function(loss_and_gradients, jit_compile=True, autograph=False)

    def on_one_replica(images, noise, done):
        replica = tf.distribute.get_replica_context()
        local = batch // replica.num_replicas_in_sync
        first = local * replica.replica_id_in_sync_group
        mine = slice(first, first + local)
        terms, gradients = arithmetic(images[mine], noise[..., mine, :], done)
        # Keras adds up the replicas' gradients: of means, that is their number too much.
        update([gradient / replica.num_replicas_in_sync for gradient in gradients])
        return row(terms)

    def on_replicas(images, noise, done):
        rows = team.strategy.run(on_one_replica, (images, noise, done))
        return tf.add_n(team.strategy.experimental_local_results(rows)) / team.replicas

    shared = team is not None and team.strategy is not None
    train = on_replicas if shared else on_one_device

    def loop(images, noise, numbers, steps):
        def body(i, rows):
            row = train(images[i], noise[i], numbers[i])
            return i + 1, tf.tensor_scatter_nd_update(rows, [[i]], [row])

        start = (tf.constant(0), tf.zeros([size, len(names)]))
        return tf.while_loop(lambda i, _: i < steps, body, start)[1]

    through = loop if shared else tf.function(loop, jit_compile=True, autograph=False)

    # Nothing here is Python that would have to be rewritten: without AutoGraph tracing is faster.
    @tf.function(
        input_signature=[tf.TensorSpec([size, batch], tf.int32), tf.TensorSpec([], tf.int32)],
        autograph=False,
    )
    def window(indices, steps):
        # The same stateless call gives other numbers inside XLA, so all is drawn out here.
        numbers = tf.cast(step, tf.int32) + tf.range(size)
        return through(*draw(indices, numbers), numbers, steps)

    def run(indices):
        steps = len(indices)
        # One static shape: a window compiled for another length would give other bits.
        padded = np.zeros((size, batch), np.int32)
        padded[:steps] = indices
        rows = window(tf.constant(padded), tf.constant(steps)).numpy()[:steps]
        rows = team.total(rows) if shared else rows
        return dict(zip(names, rows.T.astype(np.float64), strict=True))

    # No steps yet: this compiles, so that the first epoch is as fast as the others.
    run(np.zeros((0, batch), np.int32))
    return run
