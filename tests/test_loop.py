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


def test_the_window_is_a_plain_uncompiled_loop():
    """200 steps within 1e-4 relative of the same steps one by one, without XLA."""
    vae, optimizer = built()
    window = loop.training_window(vae, optimizer, IMAGES, BATCH, SEED, size=50)
    order = np.concatenate([data.batches(90, BATCH, SEED, epoch) for epoch in range(23)])[:200]
    compiled = np.concatenate([window(order[i : i + 50]) for i in range(0, 200, 50)])
    vae, optimizer = built()
    plain = []
    for step, indices in enumerate(order):
        images = tf.constant(IMAGES[indices] / np.float32(255))
        noise = loop.noise_like([BATCH, 6], SEED, loop.TRAIN_STREAM, step)
        with tf.GradientTape() as tape:
            mu, log_var, logits = vae(images, noise)
            bce = tf.reduce_mean(
                tf.reduce_sum(keras.ops.binary_crossentropy(images, logits, from_logits=True), -1)
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


def test_evaluation_does_not_depend_on_batch():
    vae, _ = built()
    by_one, by_all = (loop.evaluation(vae, 0, batch)(IMAGES) for batch in (7, 1000))
    for name in by_one:
        np.testing.assert_allclose(by_one[name], by_all[name], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(
        by_one["loss_total"], by_one["loss_bce"] + by_one["loss_KLD"], rtol=1e-6
    )


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_nll_is_the_integral_over_the_latent(latent_dim):
    """Against a grid over z that knows nothing of q, for weights with a likelihood to speak of."""
    keras.utils.set_random_seed(3)
    vae = model.VAE((16,), latent_dim, "tanh")
    for weight in vae.decoder.trainable_variables:
        weight.assign(2.0 * weight)
    images = loop.binarized(IMAGES[:20], 0)
    per_side = 4001 if latent_dim == 1 else 201
    axis = np.linspace(-8, 8, per_side, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[axis] * latent_dim), -1).reshape(-1, latent_dim)
    logits = vae.decode(grid).numpy().astype(float)
    log_px = images / 255 @ logits.T - np.logaddexp(0, logits).sum(1)
    log_pz = -0.5 * (grid.astype(float) ** 2 + np.log(2 * np.pi)).sum(1)
    cell = (axis[1] - axis[0]) ** latent_dim
    exact = -np.logaddexp.reduce(log_px + log_pz, axis=1) - np.log(cell)
    runs = np.stack([loop.nll(vae, images, 2000, seed) for seed in range(8)])
    error = runs.std(0, ddof=1).mean() / 8**0.5
    assert error < 0.05  # the check below is worth something
    assert abs((runs.mean(0) - exact).mean()) < 5 * error / 20**0.5 + 1e-3
    elbo = np.mean([loop.evaluation(vae, seed)(images)["loss_total"] for seed in range(8)])
    assert elbo > exact.mean() + 1  # which the bound alone would not pass


def test_nll_is_the_same_for_any_chunk_and_the_share_done_grows():
    vae, _ = built()
    images, shares = loop.binarized(IMAGES, 1), []
    whole = loop.nll(vae, images, 23, 0, shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    for chunk in (1, 4, 23):
        np.testing.assert_array_equal(loop.nll(vae, images, 23, 0, chunk=chunk), whole)
    assert not (loop.nll(vae, images, 23, 1) == whole).any()


def test_binarized_draws_have_the_grey_value_as_mean():
    images = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 4000))
    drawn = loop.binarized(images, 0)
    assert set(np.unique(drawn)) == {0, 255}
    assert (drawn[0] == 0).all() and (drawn[255] == 255).all()
    # Six standard errors of a share.
    assert np.abs(drawn.mean(1) / 255 - np.arange(256) / 255).max() < 6 * 0.5 / 4000**0.5
    np.testing.assert_array_equal(loop.binarized(drawn, 7), drawn)


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
    # Half a pixel to the left: each pixel is the mean of itself and its right neighbour.
    moved = middle.copy()
    moved[:, 4] = 1.0
    square = images.numpy().reshape(6, 28, 28)
    expected = 0.5 * (square + np.pad(square, ((0, 0), (0, 0), (0, 1)))[:, :, 1:])
    found = loop.warped(images, 1.0, moved).numpy().reshape(6, 28, 28)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Any warp keeps the middle of a digit within half a pixel and the rounding of its corners.
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


def test_posterior_is_the_moments_of_mu():
    vae, _ = built()
    mu, log_var = (part.numpy().astype(float) for part in vae.encode(IMAGES / np.float32(255)))
    found = loop.posterior(vae, IMAGES, batch=7)
    np.testing.assert_allclose(found["mu_mean"], mu.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["mu_std"], mu.std(0), rtol=1e-3, atol=1e-6)
    kld = 0.5 * (np.exp(log_var) + mu**2 - log_var - 1).mean(0)
    np.testing.assert_allclose(found["KLD"], kld, rtol=1e-3, atol=1e-6)


def test_the_default_window_is_bounded():
    vae = model.VAE()
    size = loop.window_size(vae, 100)
    assert 20 <= size <= 550
    assert size * 100 * 128 * 4 <= loop.NOISE_BYTES
    assert loop.window_size(vae, 10**6) == 1
