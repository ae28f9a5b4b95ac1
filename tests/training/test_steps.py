"""support/training/steps.py: the compiled loop against a plain one, calls of several sizes.

However steps are divided into calls, the results are bit-identical.
"""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import data
import model
import train
from support import noise
from support.training import optimizer as optimizers
from support.training import steps
from support.training.workers import Workers
from tests.helpers import ROOT

BATCH, SEED, SIZE, LATENT = 10, 5, 12, 6
IMAGES = data.load("digits").train.images[:90]
NAMES = ("objective", *model.TERMS)


class PlainStep:
    """A training step without augmentation, KL warm-up or a configuration."""

    def __init__(self, vae, optimizer, samples=1):
        self.vae, self.optimizer, self.samples = vae, optimizer, samples
        self.images = tf.constant(IMAGES)

    @property
    def done(self):
        return self.optimizer.iterations

    def inputs(self, indices, numbers):
        def drawn(step):
            shape = [BATCH, LATENT]
            return noise.antithetic_normal(shape, self.samples, SEED, noise.TRAINING, step)

        images = data.to_float(tf.gather(self.images, indices))
        return images, noise.for_each_step(drawn, numbers)

    def gradients(self, images, drawn, step):
        return train.loss_and_gradients(self.vae, images, drawn, "bce", 1.0)

    def update(self, gradients):
        self.optimizer.apply_gradients(zip(gradients, self.vae.trainable_variables, strict=True))


def built():
    keras.utils.set_random_seed(SEED)
    vae = model.VAE((24, 12), LATENT, "silu")
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 400, warmup_target=2e-3, warmup_steps=5)
    return vae, optimizers.build("nadamw", vae.trainable_variables, schedule, weight_decay=0.1)


def order_of(epochs):
    return np.concatenate([noise.epoch_order(90, SEED, e).reshape(9, BATCH) for e in range(epochs)])


class Trained:
    """Compiled steps of a new model, which can be reset to its first weights."""

    def __init__(self, workers, size=SIZE, samples=1):
        with workers.scope():
            self.vae, self.optimizer = built()
        self._state = [*self.vae.trainable_variables, *self.optimizer.variables]
        self._start = [variable.numpy() for variable in self._state]
        step = PlainStep(self.vae, self.optimizer, samples)
        self.call = steps.compile_steps(step, NAMES, workers, size, BATCH)

    def changed(self):
        """Whether anything has changed since before the steps were compiled."""
        pairs = zip(self._state, self._start, strict=True)
        return any((variable.numpy() != value).any() for variable, value in pairs)

    def steps_in(self, lengths):
        """Trains from the first weights, with `lengths` steps in each call.

        Returns:
            The means of each step, and the last weights.
        """
        for variable, value in zip(self._state, self._start, strict=True):
            variable.assign(value)
        order, found, first = order_of(4), [], 0
        for length in lengths:
            means = self.call(order[first : first + length])
            assert all(values.shape == (length,) for values in means.values())
            found.append(means)
            first += length
        joined = {name: np.concatenate([means[name] for means in found]) for name in NAMES}
        return joined, [variable.numpy() for variable in self.vae.trainable_variables]


@pytest.fixture(scope="module")
def trained():
    one = Trained(Workers())
    assert not one.changed()  # a first call with no steps compiles, and trains nothing
    return one


@pytest.fixture(scope="module")
def whole(trained):
    return trained.steps_in([12, 12, 12])


@pytest.mark.parametrize("lengths", [[1] * 36, [7, 5, 11, 1, 12]])
def test_calls_of_any_number_of_steps_give_the_same_bits(trained, whole, lengths):
    means, values = trained.steps_in(lengths)
    for name in NAMES:
        np.testing.assert_array_equal(means[name], whole[0][name])
    for value, expected in zip(values, whole[1], strict=True):
        np.testing.assert_array_equal(value, expected)
    assert trained.changed()


def plain_noise(samples, step):
    """The noise of a step, drawn and paired here without `antithetic_normal`."""
    if samples == 1:
        return noise.normal([1, BATCH, LATENT], SEED, noise.TRAINING, step)
    first, second = noise.normal([2, BATCH, LATENT], SEED, noise.TRAINING, step)
    return tf.stack([first, second, -first])


@pytest.mark.parametrize("samples", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_compiled_steps_are_a_plain_uncompiled_loop(request, samples):
    """36 steps agree within 1e-4 (relative) with the same steps one by one, without XLA."""
    few = request.getfixturevalue("trained") if samples == 1 else Trained(Workers(), SIZE, samples)
    found, found_values = few.steps_in([12, 12, 12])
    vae, optimizer = built()

    @tf.function(autograph=False)
    def plain_step(images, drawn):
        with tf.GradientTape() as tape:
            mu, log_var = vae.encode(images)
            logits = vae.decode(mu + tf.exp(log_var / 2) * drawn)
            target = tf.broadcast_to(images, logits.shape)
            bce = tf.reduce_mean(
                tf.reduce_sum(keras.ops.binary_crossentropy(target, logits, from_logits=True), -1)
            )
            kld = tf.reduce_mean(-0.5 * tf.reduce_sum(1 + log_var - mu**2 - tf.exp(log_var), -1))
            loss = bce + kld
        gradients = tape.gradient(loss, vae.trainable_variables)
        optimizer.apply_gradients(zip(gradients, vae.trainable_variables, strict=True))
        return loss, bce, kld

    plain = []
    for number, indices in enumerate(order_of(4)):
        images = tf.constant(IMAGES[indices] / np.float32(255))
        plain.append([float(v) for v in plain_step(images, plain_noise(samples, number))])
    losses, bces, klds = np.array(plain).T
    assert losses[-1] < 0.9 * losses[0]  # it did learn
    np.testing.assert_allclose(found["objective"], losses, rtol=1e-4)
    np.testing.assert_allclose(found["loss_bce"], bces, rtol=1e-4)
    np.testing.assert_allclose(found["loss_KLD"], klds, rtol=1e-3, atol=1e-4)
    for value, variable in zip(found_values, vae.trainable_variables, strict=True):
        np.testing.assert_allclose(value, variable.numpy(), rtol=1e-2, atol=1e-4)


def test_gradients_are_available_together_and_unchanged():
    gradients = [tf.constant([[1.0, 2.0]]), tf.constant([3.0, 4.0]), tf.constant([5.0])]
    for found, given in zip(steps._available_together(gradients), gradients, strict=True):
        np.testing.assert_array_equal(found, given)


def test_one_replica_of_a_strategy_computes_the_same(whole):
    """With a strategy, the module takes another path, where XLA compiles only the gradients."""
    one = Trained(Workers(tf.distribute.MirroredStrategy(["CPU:0"])))
    assert not one.changed()
    means, _ = one.steps_in([7, 5])
    for name in NAMES:
        np.testing.assert_allclose(means[name], whole[0][name][:12], rtol=1e-4, err_msg=name)


TWO_DEVICES = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from support.training.workers import Workers
from tests.training import test_steps
workers = Workers(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
assert workers.replicas == 2
means, values = test_steps.Trained(workers).steps_in([7, 5])
np.savez(sys.argv[1], *values, **means)
"""


def test_two_devices_that_share_each_batch_compute_what_one_does(trained, tmp_path):
    path = tmp_path / "found.npz"
    run = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    means, values = trained.steps_in([12])
    with np.load(path) as found:
        for name in NAMES:
            np.testing.assert_allclose(found[name], means[name], rtol=1e-4, err_msg=name)
        for i, value in enumerate(values):
            np.testing.assert_allclose(found[f"arr_{i}"], value, rtol=1e-2, atol=1e-4)


def test_a_call_of_the_default_network_is_bounded():
    vae = model.VAE()
    size = steps.most_steps_per_call(vae, 100, 2)
    assert 20 <= size <= 550
    # At most 64 MiB of input: two versions of each image, and the noise.
    assert size * 100 * (2 * 784 + 2 * 128) * 4 <= 64 * 2**20
    # 60 GFLOP: six per weight and image; for the decoder, also per sample of z.
    equal = 2 * (224 * 224 + 224)
    encoder = 784 * 448 + 448 + 448 * 224 + 224 + equal + 224 * 256 + 256
    decoder = 128 * 224 + 224 + equal + 224 * 448 + 448 + 448 * 784 + 784
    flops = 6 * 100 * (encoder + 2 * decoder)
    assert size * flops <= 60e9 < (size + 1) * flops


@pytest.mark.parametrize(
    "hidden, latent, batch, samples, expected",
    [
        # Limited by memory: 2**26 bytes for 100 images of 2 * 784 + 4 numbers with 4 bytes each.
        ((8,), 4, 100, 1, 106),
        # Limited by memory, most of which is noise.
        ((8,), 64, 100, 50, 35),
        # Limited by time: 60e9 divided by six, 1000 images and the number of weights.
        ((1000,), 100, 1000, 3, 2),
        # Never less than one step.
        ((8,), 4, 10**6, 2, 1),
        ((2000, 2000), 10, 5000, 9, 1),
    ],
)
def test_a_call_has_so_many_steps(hidden, latent, batch, samples, expected):
    """It depends on sizes alone, so that it is the same on every machine."""
    assert steps.most_steps_per_call(model.VAE(hidden, latent), batch, samples) == expected
