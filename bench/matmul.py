"""Contenders that find the machine's limit: the float32 matrix product of three libraries.

Each function imports its own library, so that a process loads only one.
"""

from __future__ import annotations

import argparse

import numpy as np

from bench.contenders import Contender

SIDE = 2048
# Products per turn.
COUNT = 10


def numpy(args: argparse.Namespace) -> Contender:
    """The product in NumPy."""
    a, b = np.random.default_rng(args.seed).random((2, SIDE, SIDE), np.float32)
    return Contender(lambda: [(a @ b)[0, 0] for _ in range(COUNT)][-1])


def tensorflow(args: argparse.Namespace) -> Contender:
    """The product in TensorFlow."""
    import tensorflow as tf

    a, b = tf.random.stateless_uniform((2, SIDE, SIDE), [args.seed, 0])
    return Contender(lambda: [tf.matmul(a, b).numpy()[0, 0] for _ in range(COUNT)][-1])


def jax(args: argparse.Namespace) -> Contender:
    """The product in JAX."""
    import jax

    a, b = jax.random.uniform(jax.random.key(args.seed), (2, SIDE, SIDE))
    product = jax.jit(jax.numpy.matmul)
    return Contender(lambda: [product(a, b).block_until_ready()[0, 0] for _ in range(COUNT)][-1])
