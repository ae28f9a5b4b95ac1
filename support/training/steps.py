"""Several training steps per call, compiled into one loop.

For a model this small, Python between the steps would take as much time as their arithmetic. So one
call runs many steps (as `steps_per_execution` does in Keras). The results are bit-identical for any
number of steps per call.

    steps = compile_steps(step, ("loss_total",), workers, steps_per_call=50, batch_size=100)
    means = steps(indices)["loss_total"]           # indices: int32 (n, batch), n <= 50

Noise is drawn outside of what XLA compiles (support/noise.py says why). Every call is padded to one
static shape and is given the true number of steps at run time: if it were compiled for another
length, the same step could give different bits.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import model
from support.datasets.types import PIXELS
from support.training.workers import Workers

# Limits of a call: the memory of its inputs, and what two cores compute in half a second, since
# Python handles a signal only when a compiled call returns.
INPUT_BYTES = 64 * 2**20
CALL_FLOPS = 60e9


class Step(Protocol):
    """One training step: see `TrainingStep` in train.py."""

    @property
    def done(self) -> keras.Variable:
        """How many steps of the run are done."""

    def inputs(self, indices: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the images and the noise of several steps."""

    def gradients(
        self, images: tf.Tensor, noise: tf.Tensor, step: tf.Tensor
    ) -> tuple[Mapping[str, tf.Tensor], Sequence[tf.Tensor]]:
        """Returns the terms of the loss and the gradients of one step."""

    def update(self, gradients: Sequence[tf.Tensor]) -> None:
        """Updates the weights."""


def most_steps_per_call(vae: model.VAE, batch_size: int, samples: int) -> int:
    """Returns how many steps one call computes, which depends only on sizes, not on the machine.

    Args:
        vae: the model that is trained.
        batch_size: images per step.
        samples: samples of z per image.
    """
    weights = vae.encoder.count_params() + samples * vae.decoder.count_params()
    floats = 2 * PIXELS + samples * vae.latent_dim
    by_memory = INPUT_BYTES // (4 * batch_size * floats)
    # Forward and backward, each weight takes six floating-point operations per image.
    by_time = CALL_FLOPS // (6 * batch_size * weights)
    return int(max(1, min(by_memory, by_time)))


def compile_steps(
    step: Step, names: Sequence[str], workers: Workers, steps_per_call: int, batch_size: int
) -> "CompiledSteps":
    """Compiles a training step into a loop over several steps.

    Args:
        step: what one step computes.
        names: the terms whose means are returned.
        workers: the devices and machines that share each batch.
        steps_per_call: the largest number of steps per call.
        batch_size: images per step, over all devices.
    """
    if workers.strategy is None:
        return CompiledSteps(step, names, steps_per_call, batch_size)
    return DistributedSteps(step, names, steps_per_call, batch_size, workers)


class CompiledSteps:
    """Several steps on one device: their gradients and updates are one XLA program.

    Args:
        step, names, steps_per_call, batch_size: see `compile_steps`.
    """

    def __init__(
        self, step: Step, names: Sequence[str], steps_per_call: int, batch_size: int
    ) -> None:
        self._step, self._names = step, tuple(names)
        self._size, self._batch_size = steps_per_call, batch_size
        self._loop = self._compiled_loop()
        # No Python control flow needs AutoGraph here; tracing is faster without it.
        self._call = tf.function(
            self._inputs_and_loop,
            input_signature=[
                tf.TensorSpec([steps_per_call, batch_size], tf.int32),
                tf.TensorSpec([], tf.int32),
            ],
            autograph=False,
        )
        # A call of zero steps compiles the loop, so that the first epoch is as fast as the others.
        self(np.zeros((0, batch_size), np.int32))

    def __call__(self, indices: NDArray[np.int32]) -> dict[str, NDArray[np.float64]]:
        """Runs at most `steps_per_call` training steps.

        Args:
            indices: which training images each step gets, (steps, batch).

        Returns:
            The mean of each term over the images of each step, (steps,) by name.
        """
        steps = len(indices)
        padded = np.zeros((self._size, self._batch_size), np.int32)
        padded[:steps] = indices
        means = self._call(tf.constant(padded), tf.constant(steps)).numpy()[:steps]
        means = self._over_all_workers(means)
        return dict(zip(self._names, means.T.astype(np.float64), strict=True))

    def _compiled_loop(self) -> tf.types.experimental.GenericFunction:
        return tf.function(self._run_steps, jit_compile=True, autograph=False)

    def _over_all_workers(self, means: NDArray[np.float32]) -> NDArray[np.float32]:
        return means

    def _inputs_and_loop(self, indices: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Draws the inputs of a call and runs its steps.

        Args:
            indices: (steps_per_call, batch).
            steps: how many of these steps to run.

        Returns:
            The means of the terms, (steps_per_call, names).
        """
        numbers = tf.cast(self._step.done, tf.int32) + tf.range(self._size)
        images, noise = self._step.inputs(indices, numbers)
        return self._loop(images, noise, numbers, steps)

    def _run_steps(
        self, images: tf.Tensor, noise: tf.Tensor, numbers: tf.Tensor, steps: tf.Tensor
    ) -> tf.Tensor:
        """Runs the first `steps` steps, one after the other."""

        def body(i: tf.Tensor, means: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            row = self._run_step(images[i], noise[i], numbers[i])
            return i + 1, tf.tensor_scatter_nd_update(means, [[i]], [row])

        start = (tf.constant(0), tf.zeros([self._size, len(self._names)]))
        return tf.while_loop(lambda i, _: i < steps, body, start)[1]

    def _run_step(self, images: tf.Tensor, noise: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Runs one step; returns the means of its terms, (names,)."""
        terms, gradients = self._step.gradients(images, noise, number)
        self._step.update(_available_together(gradients))
        return self._means(terms)

    def _means(self, terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.stack([tf.reduce_mean(terms[name]) for name in self._names])


class DistributedSteps(CompiledSteps):
    """Several steps whose batches are shared by replicas, under a distribution strategy.

    Args:
        step, names, steps_per_call, batch_size: see `compile_steps`.
        workers: the workers, which have a strategy.
    """

    def __init__(
        self,
        step: Step,
        names: Sequence[str],
        steps_per_call: int,
        batch_size: int,
        workers: Workers,
    ) -> None:
        self._workers = workers
        # XLA cannot compile an update across devices, so only the gradients are compiled.
        self._gradients = tf.function(step.gradients, jit_compile=True, autograph=False)
        super().__init__(step, names, steps_per_call, batch_size)

    def _compiled_loop(self) -> tf.types.experimental.GenericFunction:
        return self._run_steps

    def _over_all_workers(self, means: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._workers.total(means)

    def _run_step(self, images: tf.Tensor, noise: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        strategy = self._workers.strategy
        assert strategy is not None  # `compile_steps` has checked
        means = strategy.run(self._run_on_replica, (images, noise, number))
        local = strategy.experimental_local_results(means)
        return tf.add_n(local) / self._workers.replicas

    def _run_on_replica(self, images: tf.Tensor, noise: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Runs a step on this replica's share of the batch."""
        replica = tf.distribute.get_replica_context()
        replicas = replica.num_replicas_in_sync
        share = self._batch_size // replicas
        first = share * replica.replica_id_in_sync_group
        own = slice(first, first + share)
        terms, gradients = self._gradients(images[own], noise[..., own, :], number)
        # Keras sums the replicas' gradients; since each loss is a mean, they must be averaged.
        self._step.update([gradient / replicas for gradient in gradients])
        return self._means(terms)


def _available_together(gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the gradients, none of which is available before the last of them is computed.

    Otherwise XLA updates kernels while other gradients still need their old values, and so copies
    those kernels in every step. Backpropagation reaches the first layer last, so that layer's bias
    gradient, times zero, is added to all gradients.
    """
    nothing = 0.0 * gradients[1][0]
    return [gradient + nothing for gradient in gradients]
