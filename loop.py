"""The compiled passes over images: windows of training steps, evaluation, the posterior's summary.

Many steps run inside one XLA-compiled loop, since Python between the steps of so small a model
costs as much as their arithmetic. What is random depends on (seed, stream, step, position in the
batch) alone, never on where a window begins or ends. Nothing here knows files or flags.
"""

import numpy as np
import tensorflow as tf

import model

# One number a purpose: no two of them ever share a random draw.
TRAIN_STREAM, EVALUATION_STREAM, GENERATION_STREAM = 1, 2, 3
ROW = ("objective", "loss_total", "loss_bce", "loss_KLD", "loss_l2", "RMSE")
# Bounds of a window: what its noise may weigh, and what two cores compute in about half a second.
NOISE_BYTES = 64 * 2**20
WINDOW_FLOPS = 60e9


def window_size(vae, batch):
    """Returns how many steps fit one window: a function of sizes alone, the same on any machine."""
    latent_dim = vae.decoder.hidden[0].kernel.shape[0]
    flops = 6 * batch * sum(int(tf.size(weight)) for weight in vae.trainable_variables)
    return int(max(1, min(NOISE_BYTES // (4 * batch * latent_dim), WINDOW_FLOPS // flops)))


def noise_like(count, latent_dim, seed, stream, step):
    """Returns standard normal noise (count, latent_dim) of one (seed, stream, step)."""
    # Folding keeps the whole seed; stateless draws take two integers.
    key = tf.random.experimental.stateless_fold_in(tf.stack([seed, stream]), step)
    return tf.random.stateless_normal([count, latent_dim], key)


def pixels(images):
    """uint8 images as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) * (1 / 255)


def gradients(vae, images, noise, recon_loss, beta):
    """Loss terms and gradients of one batch.

    Args:
        images: float32 (batch, 784) in [0, 1].
        noise: (batch, latent_dim).

    Returns:
        The means over the batch of `ROW`, (6,), and the gradients of the first of them.
    """
    with tf.GradientTape() as tape:
        terms = model.loss_terms(images, *vae(images, noise))
        terms["objective"] = model.objective(terms, recon_loss, beta)
        row = tf.stack([tf.reduce_mean(terms[name]) for name in ROW])
        minimized = row[0]
    return row, tape.gradient(minimized, vae.trainable_variables)


def training_window(vae, optimizer, images, batch, seed, recon_loss="bce", beta=1.0, size=None):
    """Builds the function that trains through a window of consecutive steps.

    Args:
        vae, optimizer: both built; the optimizer's `iterations` counts the steps.
        images: uint8 (n, 784), all training images; they stay resident.
        batch: images a step.
        recon_loss, beta: as `model.objective` takes them.
        size: steps of the longest window; None: `window_size`.

    Returns:
        A function of indices, int32 (steps, batch) with steps at most `size`, that trains and
        returns the means of `ROW` in each step, float32 (steps, 6).
    """
    size = size or window_size(vae, batch)
    latent_dim = vae.decoder.hidden[0].kernel.shape[0]
    variables = vae.trainable_variables
    images = tf.constant(images)

    @tf.function(jit_compile=True)
    def compiled(images, indices, noise, steps):
        def step(i, rows):
            x = pixels(tf.gather(images, indices[i]))
            row, grads = gradients(vae, x, noise[i], recon_loss, beta)
            optimizer.apply_gradients(zip(grads, variables, strict=True))
            return i + 1, tf.tensor_scatter_nd_update(rows, [[i]], [row])

        start = (tf.constant(0), tf.zeros([size, len(ROW)]))
        return tf.while_loop(lambda i, _: i < steps, step, start)[1]

    @tf.function(
        input_signature=[tf.TensorSpec([size, batch], tf.int32), tf.TensorSpec([], tf.int32)]
    )
    def window(indices, steps):
        # The same stateless call gives other numbers inside XLA, so noise is drawn out here.
        first = tf.cast(optimizer.iterations, tf.int32)
        noise = tf.map_fn(
            lambda step: noise_like(batch, latent_dim, seed, TRAIN_STREAM, step),
            first + tf.range(size),
            fn_output_signature=tf.float32,
        )
        return compiled(images, indices, noise, steps)

    def run(indices):
        steps = len(indices)
        # One static shape: a window compiled for another length would give other bits.
        padded = np.zeros((size, batch), np.int32)
        padded[:steps] = indices
        return window(tf.constant(padded), tf.constant(steps)).numpy()[:steps]

    run.size = size
    return run


def evaluation(vae, seed, batch=1000):
    """Builds the function that evaluates images one by one.

    Args:
        vae: a `model.VAE`.
        seed: of the noise; each image's depends on its position, not on `batch`.
        batch: how many images are computed at a time.

    Returns:
        A function of images, uint8 (n, 784), that returns a dict of float32 (n,) by the names of
        `model.loss_terms` plus `RMSE_mean` (z = mu), and `mu` (n, latent_dim).
    """
    latent_dim = vae.decoder.hidden[0].kernel.shape[0]

    @tf.function(reduce_retracing=True)
    def part(images, noise):
        x = pixels(images)
        mu, log_var = vae.encode(x)
        logits = vae.decode(vae.reparameterize(mu, log_var, noise))
        terms = model.loss_terms(x, mu, log_var, logits)
        terms["RMSE_mean"] = model.rmse(model.loss_l2(x, vae.decode(mu)))
        return terms | {"mu": mu}

    def evaluate(images):
        noise = noise_like(len(images), latent_dim, seed, EVALUATION_STREAM, 0)
        parts = [
            part(tf.constant(images[i : i + batch]), noise[i : i + batch])
            for i in range(0, len(images), batch)
        ]
        return {name: np.concatenate([p[name].numpy() for p in parts]) for name in parts[0]}

    return evaluate


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
