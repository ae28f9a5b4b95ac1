"""The devices and machines that share a run, and how they communicate.

    with join("auto", cluster, timeout=120) as workers:
        workers.total(np.array([1.0]))       # the same sum on every worker

All numbers move between devices and machines through TensorFlow's distribution strategies.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from support import startup
from support.errors import UserError
from support.training import watchdog
from support.training.rendezvous import Cluster, greet

if TYPE_CHECKING:
    import tensorflow as tf

# How long workers that have greeted each other may take to connect, beyond `--cluster_timeout`.
CONNECTION_SECONDS = 30.0
STRATEGIES = ("auto", "one", "mirrored", "multi_worker")


class Workers:
    """The replicas of a run on all devices and machines; one replica without a strategy.

    Args:
        strategy: TensorFlow's strategy; None: one device.
        index: the index of this worker; 0 is the chief, the only one that prints and writes.
    """

    def __init__(self, strategy: "tf.distribute.Strategy | None" = None, index: int = 0) -> None:
        self.strategy = strategy
        self.chief = index == 0
        self.replicas = strategy.num_replicas_in_sync if strategy else 1
        self._local_replicas = len(strategy.extended.worker_devices) if strategy else 1

    def scope(self) -> contextlib.AbstractContextManager:
        """Returns the context in which variables must be created."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def total(self, values: NDArray) -> NDArray:
        """Returns the sum of `values` over all workers, the same on each."""
        import tensorflow as tf

        if self.strategy is None or self.replicas == self._local_replicas:
            return values

        def from_first_replica(context: tf.distribute.DistributedValues) -> tf.Tensor:
            is_first = context.replica_id_in_sync_group % self._local_replicas == 0
            return tf.constant(values) * int(is_first)

        each = self.strategy.experimental_distribute_values_from_function(from_first_replica)
        return self.strategy.reduce("SUM", each, axis=None).numpy()

    def any(self, flag: bool) -> bool:
        """Returns whether `flag` is true on any worker; all of them must call this."""
        return bool(self.total(np.array([float(flag)]))[0])

    def wait(self) -> None:
        """Returns once all workers have called this."""
        self.any(False)

    def require_equal_shares(self, batch_size: int) -> None:
        """Raises a `UserError` if a batch cannot be divided equally among the replicas."""
        if batch_size % self.replicas:
            raise UserError(
                f"--batch {batch_size} is not a multiple of the number of devices, "
                f"{self.replicas}: choose a multiple of {self.replicas}"
            )

    def require_same(self, numbers: Sequence[float], message: str) -> None:
        """Raises a `UserError` on every worker unless all have the same numbers as the chief."""
        own = np.array(numbers, np.float64)
        chiefs = self.total(own * self.chief)
        if self.any(bool((chiefs != own).any())):
            raise UserError(message)


@contextlib.contextmanager
def join(strategy: str, cluster: Cluster | None, timeout: float) -> Iterator[Workers]:
    """Waits for the other workers, if any, imports TensorFlow and builds the strategy.

    Args:
        strategy: one of `STRATEGIES`.
        cluster: what `rendezvous.from_environment` returns.
        timeout: seconds to wait for other workers.

    Yields:
        The workers. If another worker is lost, the block ends with a `UserError`.
    """
    if cluster:
        greet(cluster, timeout)
    with _copy_of_stderr() as screen, startup.quiet_import(), _explained(cluster):
        # A strategy must be built before TensorFlow has looked at any device.
        if cluster:
            # Again, since a worker may have ended while this one imported TensorFlow.
            greet(cluster, timeout)
        lost = "the workers in TF_CONFIG did not connect in time: start all of them again"
        with watchdog.watched(timeout + CONNECTION_SECONDS, lost, screen):
            workers = _build(strategy, cluster, timeout)
    with _explained(cluster):
        yield workers


@contextlib.contextmanager
def _copy_of_stderr() -> Iterator[int]:
    """Yields a descriptor that writes to the screen even if descriptor 2 is redirected."""
    screen = os.dup(2)
    try:
        yield screen
    finally:
        os.close(screen)


def _build(strategy: str, cluster: Cluster | None, timeout: float) -> Workers:
    import tensorflow as tf

    if cluster:
        options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
        shared = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        return Workers(shared, cluster.index)
    # Listing the devices makes TensorFlow print its messages about missing GPUs now.
    gpus = tf.config.list_logical_devices("GPU")
    if strategy == "mirrored" or (strategy == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return Workers(tf.distribute.MirroredStrategy([device.name for device in devices]))
    return Workers()


@contextlib.contextmanager
def _explained(cluster: Cluster | None) -> Iterator[None]:
    """Turns TensorFlow's errors about lost workers into a `UserError`."""
    import tensorflow as tf

    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    )
    try:
        yield
    except lost as error:
        if cluster is None:
            raise
        raise UserError(
            f"another worker has ended or cannot be reached ({type(error).__name__}): start all "
            "workers again with the same commands to continue the run"
        ) from error
