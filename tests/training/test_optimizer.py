"""support/training/optimizer.py: AdamW and NAdamW against their papers' algorithms in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import model
from support import records
from support.training import optimizer as optimizers
from support.training.schedule import LearningRate

STEPS = 12


def reference(name, starts, gradients, rates, weight_decay, beta_2):
    """Algorithm 2 of Loshchilov and Hutter, 2019, in float64; only matrices decay.

    AdamW's bias corrections are part of the rate, as in Kingma and Ba, 2015, end of section 2,
    which changes epsilon. With Nesterov's momentum the corrected mean of the gradients is that of
    algorithm 8 in Dozat's report, whose decay rate of the mean rises from step to step.
    """
    values = [start.astype(float) for start in starts]
    first = [np.zeros_like(value) for value in values]
    second = [np.zeros_like(value) for value in values]

    def momentum(t):
        return 0.9 * (1 - 0.5 * 0.96**t)

    for t, (step_gradients, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        product = np.prod([momentum(i) for i in range(1, t + 1)])
        for i, gradient in enumerate(step_gradients):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = beta_2 * second[i] + (1 - beta_2) * gradient**2
            mean, epsilon = first[i] / (1 - 0.9**t), 1e-7 / (1 - beta_2**t) ** 0.5
            if name == "nadamw":
                epsilon = 1e-7
                ahead = momentum(t + 1) * first[i] / (1 - product * momentum(t + 1))
                mean = ahead + (1 - momentum(t)) * gradient / (1 - product)
            decay = weight_decay * values[i] if values[i].ndim == 2 else 0.0
            update = mean / (np.sqrt(second[i] / (1 - beta_2**t)) + epsilon)
            values[i] = values[i] - rate * (update + decay)
    return values


@pytest.fixture
def vae():
    keras.utils.set_random_seed(2)
    vae = model.VAE((5, 4), 2)
    for bias in vae.trainable_variables[1::2]:
        bias.assign(np.linspace(-1, 1, bias.shape[0]))
    return vae


def updated(name, vae, rate, **settings):
    """The weights before and after updates with random gradients, and these gradients."""
    variables = vae.trainable_variables
    random = np.random.default_rng(0)
    gradients = [
        [random.normal(0, 0.1 + 0.1 * (t % 7), v.shape) for v in variables] for t in range(STEPS)
    ]
    starts = [variable.numpy() for variable in variables]
    optimizer = optimizers.build(name, variables, rate, **settings)
    for step_gradients in gradients:
        tensors = [tf.constant(gradient, tf.float32) for gradient in step_gradients]
        optimizer.apply_gradients(zip(tensors, variables, strict=True))
    return starts, [variable.numpy() for variable in variables], gradients


@pytest.mark.parametrize("name", records.OPTIMIZERS)
@pytest.mark.parametrize("weight_decay, beta_2", [(0.1, 0.99), (2.0, 0.9), (0.0, 0.999)])
def test_updates_are_those_of_the_algorithm(vae, name, weight_decay, beta_2):
    """Kernels decay and biases do not, at the rate of a schedule."""
    schedule = LearningRate(0.05, "linear", 2, STEPS)
    settings = {"weight_decay": weight_decay, "beta_2": beta_2}
    starts, found, gradients = updated(name, vae, schedule, **settings)
    rates = [float(schedule(step)) for step in range(STEPS)]
    expected = reference(name, starts, gradients, rates, weight_decay, beta_2)
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=2e-4, atol=2e-5)


def test_the_defaults_are_those_of_adam(vae):
    starts, found, gradients = updated("adamw", vae, 0.05)
    expected = reference("adamw", starts, gradients, [0.05] * STEPS, 0.0, 0.999)
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name, others", [("adamw", 2), ("nadamw", 3)])
def test_the_optimizer_is_built_for_the_variables(vae, name, others):
    """So that a save can be loaded into it before the first step."""
    optimizer = optimizers.build(name, vae.trainable_variables, 0.1)
    assert optimizer.built and int(optimizer.iterations.numpy()) == 0
    # The step count, the learning rate, the product of the momenta, and two moments per weight.
    assert len(optimizer.variables) == others + 2 * len(vae.trainable_variables)
