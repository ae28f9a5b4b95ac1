"""A contender in JAX: `lax.scan` over a whole epoch, as one compiled function."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from bench.contenders import EPSILON, Contender, training_images, validation_images
from support.datasets.types import PIXELS

# A kernel and a bias for each layer.
Layers = list[tuple[jax.Array, jax.Array]]


class State(NamedTuple):
    """What a training step changes: weights, Adam's moments, the number of steps done, the key."""

    weights: tuple[Layers, Layers]
    first: tuple[Layers, Layers]
    second: tuple[Layers, Layers]
    steps: jax.Array
    key: jax.Array


def scan(args: argparse.Namespace) -> Contender:
    """Training and validation in JAX."""
    # On the CPU, the fastest of JAX's generators whose quality is good enough for training.
    jax.config.update("jax_default_prng_impl", "rbg")
    loss_of = _loss(getattr(jax.nn, args.activation))
    images = jnp.asarray(training_images(args), jnp.float32) / 255
    step = _step(loss_of, images, args)
    key = jax.random.key(args.seed)

    @jax.jit
    def run_steps(state: State, order: jax.Array) -> tuple[State, jax.Array]:
        state, losses = jax.lax.scan(step, state, order)
        return state, losses.mean()

    # In a list, since the functions below replace its element.
    state = [_initial_state(key, args)]
    random = np.random.default_rng(args.seed)

    def epoch() -> jax.Array:
        order = random.permutation(len(images)).reshape(-1, args.batch).astype(np.int32)
        state[0], loss = run_steps(state[0], order)
        return loss

    validation = jnp.asarray(validation_images(args))
    noise = jax.random.normal(key, (len(validation), args.latent_dim))
    return Contender(epoch, lambda: loss_of(state[0].weights, validation, noise))


def _loss(activation: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """Returns the -ELBO as a function of weights, images (n, 784) and noise (n, latent_dim)."""

    def through(layers: Layers, x: jax.Array) -> jax.Array:
        for index, (kernel, bias) in enumerate(layers):
            x = x @ kernel + bias
            if index < len(layers) - 1:
                x = activation(x)
        return x

    def loss_of(weights: tuple[Layers, Layers], x: jax.Array, noise: jax.Array) -> jax.Array:
        encoder, decoder = weights
        mu, log_var = jnp.split(through(encoder, x), 2, axis=1)
        logits = through(decoder, mu + jnp.exp(0.5 * log_var) * noise)
        bce = jnp.maximum(logits, 0) - logits * x + jnp.log1p(jnp.exp(-jnp.abs(logits)))
        kld = 0.5 * (jnp.exp(log_var) + mu**2 - log_var - 1)
        return (bce.sum() + kld.sum()) / len(x)

    return loss_of


def _step(
    loss_of: Callable[..., jax.Array], images: jax.Array, args: argparse.Namespace
) -> Callable[[State, jax.Array], tuple[State, jax.Array]]:
    """Returns one training step for `lax.scan`: state and indices -> state and loss."""

    def step(state: State, batch: jax.Array) -> tuple[State, jax.Array]:
        key, subkey = jax.random.split(state.key)
        noise = jax.random.normal(subkey, (args.batch, args.latent_dim))
        loss, grads = jax.value_and_grad(loss_of)(state.weights, images[batch], noise)
        steps = state.steps + 1
        # Adam (Kingma and Ba 2015, algorithm 1), with the order of operations of Keras.
        first = jax.tree.map(lambda m, g: m + 0.1 * (g - m), state.first, grads)
        second = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), state.second, grads)
        rate = args.learning_rate * jnp.sqrt(1 - 0.999**steps) / (1 - 0.9**steps)
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), state.weights, first, second
        )
        return State(weights, first, second, steps, key), loss

    return step


def _initial_state(key: jax.Array, args: argparse.Namespace) -> State:
    weights = (
        _network(jax.random.fold_in(key, 1), [PIXELS, *args.hidden_units, 2 * args.latent_dim]),
        _network(
            jax.random.fold_in(key, 2), [args.latent_dim, *reversed(args.hidden_units), PIXELS]
        ),
    )
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return State(weights, zeros, zeros, jnp.zeros(()), key)


def _network(key: jax.Array, widths: Sequence[int]) -> Layers:
    """Returns layers of these widths, with Glorot-uniform kernels and zero biases."""
    glorot = jax.nn.initializers.glorot_uniform()
    pairs = list(itertools.pairwise(widths))
    keys = jax.random.split(key, len(pairs))
    return [(glorot(k, pair), jnp.zeros(pair[1])) for k, pair in zip(keys, pairs, strict=True)]
