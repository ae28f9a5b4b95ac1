"""loop.py: the compiled window against a plain loop, and bits that do not depend on windows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import data
import fit
import loop
import model

BATCH, SEED, SIZE = 10, 5, 12
IMAGES = data.load("digits").train.images[:90]


def built():
    keras.utils.set_random_seed(SEED)
    vae = model.VAE((24, 12), 6, "silu")
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 400, warmup_target=2e-3, warmup_steps=5)
    return vae, fit.adam(vae.trainable_variables, schedule, weight_decay=0.1)


def trained_in(lengths):
    vae, optimizer = built()
    window = loop.training_window(vae, optimizer, IMAGES, BATCH, SEED, size=SIZE)
    order = np.concatenate([data.batches(90, BATCH, SEED, epoch) for epoch in range(4)])
    rows, first = [], 0
    for length in lengths:
        rows.append(window(order[first : first + length]))
        first += length
    return np.concatenate(rows), [variable.numpy() for variable in vae.trainable_variables]


@pytest.fixture(scope="module")
def whole():
    return trained_in([12, 12, 12])


@pytest.mark.parametrize("lengths", [[1] * 36, [7, 5, 11, 1, 12], [12, 12, 12]])
def test_windows_of_any_length_give_the_same_bits(whole, lengths):
    rows, values = trained_in(lengths)
    np.testing.assert_array_equal(rows, whole[0])
    for value, expected in zip(values, whole[1], strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("elbo_samples", [1, 3])
def test_the_window_is_a_plain_uncompiled_loop(elbo_samples):
    """200 steps within 1e-4 relative of the same steps one by one, without XLA."""
    vae, optimizer = built()
    objective = loop.Objective(elbo_samples=elbo_samples)
    window = loop.training_window(vae, optimizer, IMAGES, BATCH, SEED, objective, size=50)
    order = np.concatenate([data.batches(90, BATCH, SEED, epoch) for epoch in range(23)])[:200]
    compiled = np.concatenate([window(order[i : i + 50]) for i in range(0, 200, 50)])
    vae, optimizer = built()
    plain = []
    for step, indices in enumerate(order):
        images = tf.constant(IMAGES[indices] / np.float32(255))
        if elbo_samples == 1:
            noise = loop.noise_like([BATCH, 6], SEED, loop.TRAIN_STREAM, step)
        else:
            first, second = loop.noise_like([2, BATCH, 6], SEED, loop.TRAIN_STREAM, step)
            noise = tf.stack([first, second, -first])
        with tf.GradientTape() as tape:
            mu, log_var, logits = vae(images, noise)
            target = tf.broadcast_to(images, logits.shape)
            bce = tf.reduce_mean(
                tf.reduce_sum(keras.ops.binary_crossentropy(target, logits, from_logits=True), -1)
            )
            kld = tf.reduce_mean(-0.5 * tf.reduce_sum(1 + log_var - mu**2 - tf.exp(log_var), -1))
            loss = bce + kld
        grads = tape.gradient(loss, vae.trainable_variables)
        optimizer.apply_gradients(zip(grads, vae.trainable_variables, strict=True))
        plain.append([loss.numpy(), bce.numpy(), kld.numpy()])
    names = [loop.ROW.index(name) for name in ("objective", "loss_bce", "loss_KLD")]
    assert plain[-1][0] < 0.8 * plain[0][0]  # it did learn
    np.testing.assert_allclose(compiled[:, names[:2]], np.array(plain)[:, :2], rtol=1e-4)
    np.testing.assert_allclose(compiled[:, names[2]], np.array(plain)[:, 2], rtol=1e-3, atol=1e-4)


def test_noise_depends_on_seed_stream_and_step():
    keys = [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (1, 0, 0)]
    drawn = [loop.noise_like([4, 3], *key).numpy() for key in keys]
    for i, first in enumerate(drawn):
        np.testing.assert_array_equal(first, loop.noise_like([4, 3], *keys[i]))
        assert all(not np.allclose(first, other) for other in drawn[i + 1 :])


def test_batches_are_a_permutation_of_the_epoch():
    order = data.batches(95, 10, SEED, 0)
    assert order.shape == (9, 10)
    assert len(set(order.ravel())) == 90 and set(order.ravel()) <= set(range(95))
    np.testing.assert_array_equal(order, data.batches(95, 10, SEED, 0))
    assert (order != data.batches(95, 10, SEED, 1)).any()
    assert (order != data.batches(95, 10, SEED + 1, 0)).any()


def test_training_on_draws_sees_fresh_ones_in_each_step():
    """With a rate of zero, the loss of the same batch still differs from step to step."""
    vae, _ = built()
    vae.decoder.head.bias.assign(np.linspace(-3, 3, 784))
    optimizer = fit.adam(vae.trainable_variables, 0.0)
    same = np.tile(np.arange(BATCH), (4, 1))
    rows = {
        binarize: loop.training_window(
            vae, optimizer, IMAGES, BATCH, SEED, loop.Objective(binarize=binarize), size=4
        )(same)[:, loop.ROW.index("loss_bce")]
        for binarize in (False, True)
    }
    assert np.ptp(rows[True]) > 5 * np.ptp(rows[False])
    assert rows[True].mean() == pytest.approx(rows[False].mean(), rel=0.02)


def test_warped_images_move_as_the_draws_say():
    images = tf.constant(IMAGES[:6] / np.float32(255))
    middle = np.full((6, 7), 0.5, np.float32)
    np.testing.assert_array_equal(loop.warped(images, 1.0, middle), images)
    random = np.random.default_rng(0).random((6, 7), np.float32)
    np.testing.assert_array_equal(loop.warped(images, 0.0, random), images)
    # 0.75 pixels to the left: of each pixel a quarter, and three of its right neighbour.
    moved = middle.copy()
    moved[:, 4] = 1.0
    square = images.numpy().reshape(6, 28, 28)
    expected = 0.25 * square + 0.75 * np.pad(square, ((0, 0), (0, 0), (0, 1)))[:, :, 1:]
    found = loop.warped(images, 1.0, moved).numpy().reshape(6, 28, 28)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Any warp keeps the middle of a digit within 0.75 pixels and the rounding of its corners.
    warped = loop.warped(images, 1.0, random).numpy().reshape(6, 28, 28)
    assert (warped != square).any(axis=(1, 2)).all() and warped.min() >= 0 and warped.max() <= 1
    axis = np.arange(28)
    for where in ((2, 1), (1, 2)):
        centre = [(p.sum(where[0]) * axis).sum(1) / p.sum((1, 2)) for p in (square, warped)]
        assert np.abs(centre[0] - centre[1]).max() < 1


def test_the_share_that_is_warped_may_follow_the_step():
    """None in the first two steps, all later: the same bits as without, then others."""
    rows = []
    for warp in (0.0, lambda step: tf.where(step < 2, 0.0, 1.0)):
        vae, optimizer = built()
        objective = loop.Objective(warp=warp)
        window = loop.training_window(vae, optimizer, IMAGES, BATCH, SEED, objective, size=4)
        rows.append(window(data.batches(90, BATCH, SEED, 0)[:4]))
    np.testing.assert_allclose(rows[0][:2], rows[1][:2], rtol=1e-6)
    assert (rows[0][2:] != rows[1][2:]).all()


def test_the_default_window_is_bounded():
    vae = model.VAE()
    size = loop.window_size(vae, 100)
    assert 20 <= size <= 550
    assert size * 100 * 128 * 4 <= loop.NOISE_BYTES
    assert loop.window_size(vae, 10**6) == 1
