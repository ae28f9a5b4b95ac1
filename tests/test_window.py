"""support/window.py: the compiled window against a plain loop, bits that do not depend on windows,
and the random draws."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import data
import model
import train
from support import window

BATCH, SEED, SIZE = 10, 5, 12
IMAGES = data.load("digits").train.images[:90]
NAMES = ("objective", *model.TERMS)


def built():
    keras.utils.set_random_seed(SEED)
    vae = model.VAE((24, 12), 6, "silu")
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 400, warmup_target=2e-3, warmup_steps=5)
    return vae, train.adamw(vae.trainable_variables, schedule, weight_decay=0.1)


def compiled(vae, optimizer, size=SIZE, **inputs):
    """The window of train.py's own step on these images."""
    return window.compiled(
        lambda images, noise, _: train.loss_and_gradients(vae, images, noise, "bce", 1.0),
        lambda gradients: train.update(optimizer, gradients, vae.trainable_variables),
        NAMES,
        window.inputs(IMAGES, SEED, vae.latent_dim, **inputs),
        optimizer.iterations,
        size,
        BATCH,
    )


def trained_in(lengths):
    vae, optimizer = built()
    run = compiled(vae, optimizer)
    order = np.concatenate([data.batches(90, BATCH, SEED, epoch) for epoch in range(4)])
    losses, first = [], 0
    for length in lengths:
        losses.append(run(order[first : first + length])["objective"])
        first += length
    return np.concatenate(losses), [variable.numpy() for variable in vae.trainable_variables]


@pytest.fixture(scope="module")
def whole():
    return trained_in([12, 12, 12])


@pytest.mark.parametrize("lengths", [[1] * 36, [7, 5, 11, 1, 12]])
def test_windows_of_any_length_give_the_same_bits(whole, lengths):
    losses, values = trained_in(lengths)
    np.testing.assert_array_equal(losses, whole[0])
    for value, expected in zip(values, whole[1], strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("samples", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_window_is_a_plain_uncompiled_loop(samples):
    """200 steps within 1e-4 relative of the same steps one by one, without XLA."""
    vae, optimizer = built()
    run = compiled(vae, optimizer, size=50, samples=samples)
    order = np.concatenate([data.batches(90, BATCH, SEED, epoch) for epoch in range(23)])[:200]
    found = [run(order[i : i + 50]) for i in range(0, 200, 50)]
    vae, optimizer = built()
    plain = []
    for step, indices in enumerate(order):
        images = tf.constant(IMAGES[indices] / np.float32(255))
        if samples == 1:
            noise = window.normal([BATCH, 6], SEED, window.TRAIN_STREAM, step)
        else:
            first, second = window.normal([2, BATCH, 6], SEED, window.TRAIN_STREAM, step)
            noise = tf.stack([first, second, -first])
        with tf.GradientTape() as tape:
            mu, log_var = vae.encode(images)
            logits = vae.decode(mu + tf.exp(log_var / 2) * noise)
            target = tf.broadcast_to(images, logits.shape)
            bce = tf.reduce_mean(
                tf.reduce_sum(keras.ops.binary_crossentropy(target, logits, from_logits=True), -1)
            )
            kld = tf.reduce_mean(-0.5 * tf.reduce_sum(1 + log_var - mu**2 - tf.exp(log_var), -1))
            loss = bce + kld
        grads = tape.gradient(loss, vae.trainable_variables)
        optimizer.apply_gradients(zip(grads, vae.trainable_variables, strict=True))
        plain.append([loss.numpy(), bce.numpy(), kld.numpy()])
    losses, bces, klds = np.array(plain).T
    assert losses[-1] < 0.8 * losses[0]  # it did learn
    joined = {name: np.concatenate([terms[name] for terms in found]) for name in NAMES}
    np.testing.assert_allclose(joined["objective"], losses, rtol=1e-4)
    np.testing.assert_allclose(joined["loss_bce"], bces, rtol=1e-4)
    np.testing.assert_allclose(joined["loss_KLD"], klds, rtol=1e-3, atol=1e-4)


def test_noise_depends_on_seed_stream_and_step():
    keys = [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (1, 0, 0)]
    drawn = [window.normal([4, 3], *key).numpy() for key in keys]
    for i, first in enumerate(drawn):
        np.testing.assert_array_equal(first, window.normal([4, 3], *keys[i]))
        assert all(not np.allclose(first, other) for other in drawn[i + 1 :])


def test_training_on_draws_sees_fresh_ones_in_each_step():
    """With a rate of zero, the loss of the same batch still differs from step to step."""
    same, losses = np.tile(np.arange(BATCH), (4, 1)), {}
    for binarize in (False, True):
        vae, _ = built()
        vae.decoder.get_layer("logits").bias.assign(np.linspace(-3, 3, 784))
        optimizer = train.adamw(vae.trainable_variables, 0.0)
        losses[binarize] = compiled(vae, optimizer, 4, binarize=binarize)(same)["loss_bce"]
    assert np.ptp(losses[True]) > 5 * np.ptp(losses[False])
    assert losses[True].mean() == pytest.approx(losses[False].mean(), rel=0.02)


def test_warped_images_are_bent_as_the_draws_say():
    """Beside SciPy's interpolation at places that are computed image by image."""
    square = IMAGES[:6].reshape(6, 28, 28) / np.float32(255)
    images, size = tf.constant(square.reshape(6, 784)), (6, data.WARP_DRAWS)
    uniform = np.random.default_rng(0).random(size, np.float32)
    np.testing.assert_array_equal(data.warped(images, 0.8, 0.0, uniform), images)
    expected, (y, x) = [], np.indices((28, 28))
    for image, draws in zip(square, 0.8 * (2 * uniform - 1), strict=True):
        from_y, from_x = y, x
        places = itertools.product((3, 10, 17, 24), repeat=2)
        for (a, b), right, down in zip(places, draws[:16], draws[16:32], strict=True):
            fade = np.exp(-((x - a) ** 2 + (y - b) ** 2) / 72)
            from_x, from_y = from_x + right * fade, from_y + down * fade
        found = ndimage.map_coordinates(image, [from_y, from_x], order=1, mode="grid-constant")
        expected.append(np.clip(1.4 * found - 0.2, 0, 1))
    found = data.warped(images, 0.8, 1.0, uniform).numpy().reshape(6, 28, 28)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found != square).any(axis=(1, 2)).all() and found.min() >= 0 and found.max() <= 1
    # Half of the images, where the last draw is below the share.
    some = data.warped(images, 0.8, np.linspace(0, 1, 6, dtype=np.float32), uniform).numpy()
    changed = (some != images.numpy()).any(axis=1)
    assert (changed == (uniform[:, -1] < np.linspace(0, 1, 6))).all() and 0 < changed.sum() < 6


def test_the_share_that_is_warped_may_follow_the_step():
    """None in the first two steps, all later: the same bits as without, then others."""
    losses = []
    for warp in (0.0, 0.8):
        run = compiled(*built(), 4, warp=warp, share=lambda step: tf.where(step < 2, 0.0, 1.0))
        losses.append(run(data.batches(90, BATCH, SEED, 0)[:4])["objective"])
    np.testing.assert_allclose(losses[0][:2], losses[1][:2], rtol=1e-6)
    assert (losses[0][2:] != losses[1][2:]).all()


def test_the_default_window_is_bounded():
    vae = model.VAE()
    size = window.size(vae, 100, 2)
    assert 20 <= size <= 550
    assert size * 100 * (2 * 128 + 784) * 4 <= window.INPUT_BYTES
    assert window.size(vae, 10**6, 2) == 1
