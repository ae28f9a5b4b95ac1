"""Contenders in Keras: the model as Keras's own example writes it, trained by `Model.fit`."""

from __future__ import annotations

import argparse

import keras
import numpy as np
import tensorflow as tf

from bench.contenders import EPSILON, Contender, training_images, validation_images
from support.datasets.types import PIXELS


class Baseline(keras.Model):
    """A VAE as a Keras model with a train_step.

    Args:
        args: with `hidden_units`, `latent_dim` and `activation`.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        dense = keras.layers.Dense
        hidden = [dense(width, args.activation) for width in args.hidden_units]
        mirrored = [dense(width, args.activation) for width in reversed(args.hidden_units)]
        self.encoder = keras.Sequential(
            [keras.Input((PIXELS,)), *hidden, dense(2 * args.latent_dim)]
        )
        self.decoder = keras.Sequential([keras.Input((args.latent_dim,)), *mirrored, dense(PIXELS)])
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def loss_of(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the -ELBO of images (n, 784), a scalar."""
        mu, log_var = tf.split(self.encoder(x), 2, axis=1)
        z = mu + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mu))
        bce = tf.nn.sigmoid_cross_entropy_with_logits(x, self.decoder(z))
        kld = 0.5 * tf.reduce_sum(tf.exp(log_var) + mu**2 - log_var - 1, 1)
        return tf.reduce_mean(tf.reduce_sum(bce, 1) + kld)

    def train_step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Does one training step; `Model.fit` calls it."""
        with tf.GradientTape() as tape:
            loss = self.loss_of(x)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """What `Model.fit` resets before each epoch."""
        return [self.loss_tracker]


def fit(args: argparse.Namespace) -> Contender:
    """`Model.fit` on arrays, with its default settings."""
    return _fit(args)


def fit_compiled(args: argparse.Namespace) -> Contender:
    """`Model.fit` with XLA and many steps per call."""
    return _fit(args, jit_compile=True, steps_per_execution=50)


def _fit(args: argparse.Namespace, **settings: object) -> Contender:
    keras.utils.set_random_seed(args.seed)
    vae = Baseline(args)
    vae.compile(keras.optimizers.Adam(args.learning_rate, epsilon=EPSILON), **settings)
    images = training_images(args).astype(np.float32) / 255
    validation = validation_images(args)

    def epoch() -> float:
        return vae.fit(images, batch_size=args.batch, verbose=0).history["loss"][-1]

    return Contender(epoch, lambda: vae.loss_of(validation))
