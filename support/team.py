"""The devices and machines that share a run, and how they agree: TensorFlow's strategies.

    machines = team.described("auto")                 # from TF_CONFIG, or None
    crew = team.join("auto", machines, 120)           # a Team
    crew.total(np.array([1.0]))                       # the same sum on every worker

TensorFlow's own engine moves every number between devices and machines; nothing here does, but for
the greeting that tells workers that all are there: TensorFlow's constructor would wait for a
missing one for more than ten minutes and could not be interrupted.
"""

import contextlib
import hashlib
import json
import os
import socket
import time

import numpy as np

from support import UserError, cli

STRATEGIES = ("auto", "one", "mirrored", "multi_worker")
HELLO = b"train.py\n"
RUN_AGAIN = "start every worker again with the same command, and the run continues"
HOW = 'expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def described(strategy):
    """Reads the environment variable TF_CONFIG where the strategy is for many machines.

    Returns:
        The addresses of the workers, (host, port), and the index of this one; None for one machine.

    Raises:
        UserError: TF_CONFIG is needed and missing, or does not describe a cluster of workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    if strategy == "multi_worker" and not text:
        raise UserError("the strategy multi_worker needs the environment variable TF_CONFIG")
    if strategy not in ("auto", "multi_worker") or not text:
        return None
    try:
        content = json.loads(text)
        cluster, task = content["cluster"], content["task"]
        parts = [address.rpartition(":") for address in cluster["worker"]]
        addresses, index = [(host, int(port)) for host, _, port in parts], int(task["index"])
        fits = set(cluster) == {"worker"} and task.get("type") == "worker"
        # Bracketed hosts: only IPv4 and names that resolve to it were tried.
        fits &= all("[" not in host and 0 < port < 65536 for host, port in addresses)
        if not fits or not 0 <= index < len(addresses):
            raise ValueError("no worker of a cluster of workers")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"TF_CONFIG cannot be used ({error!r:.200}): {HOW}") from error
    return addresses, index


def greet(addresses, index, timeout):
    """Returns once every worker is there: each tells the first, which then tells all.

    Raises:
        UserError: one has not come within `timeout` seconds, or the first one's address is taken.
    """
    deadline = time.monotonic() + timeout
    if index == 0:
        return _gather(addresses, deadline)
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(addresses[0], timeout=1) as connection:
                connection.sendall(_hello(addresses, index))
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                if connection.recv(len(HELLO)) == HELLO:
                    return
        except OSError:
            pass  # not there yet
        time.sleep(0.05)
    raise _absent(addresses[:1], "did not answer")


def _gather(addresses, deadline):
    """Waits for all other workers to call at the first one's address, then answers them."""
    host, port = addresses[0]
    peers = {}
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        reason = f"{host}:{port} is no free port of this machine ({error.strerror})"
        raise UserError(f"TF_CONFIG: {reason}") from error
    with server, contextlib.ExitStack() as open_connections:
        while len(peers) < len(addresses) - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                absent = set(range(1, len(addresses))) - set(peers)
                raise _absent([addresses[i] for i in sorted(absent)], "never came") from None
            open_connections.enter_context(connection)
            connection.settimeout(0.5)
            # Whoever says nothing, something else, or leaves is no worker.
            with contextlib.suppress(OSError):
                said = connection.recv(100)
                for name in range(1, len(addresses)):
                    if said == _hello(addresses, name):
                        peers[name] = connection
        for connection in peers.values():
            with contextlib.suppress(OSError):
                connection.sendall(HELLO)


def _hello(addresses, index):
    """Returns what a worker says: its number, and a hash of the cluster as it knows it."""
    known = hashlib.sha256(json.dumps(addresses).encode()).hexdigest()
    return f"{index} {known}".encode()


def _absent(addresses, how):
    names = ", ".join(f"{host}:{port}" for host, port in addresses)
    return UserError(f"the workers in TF_CONFIG did not all come in time: {names} {how}")


@contextlib.contextmanager
def join(strategy, machines, timeout):
    """Builds the strategy of a name; waits for the other workers, if any.

    Args:
        strategy: one of `STRATEGIES`.
        machines: as `described` returns them.
        timeout: seconds to wait for other workers.

    Yields:
        A `Team`. The end of another worker, or of memory, leaves the block as a `UserError`.
    """
    try:
        if machines:
            greet(*machines, timeout)
        yield cli.quiet_tensorflow(lambda: _built(strategy, machines, timeout))
    except Exception as error:
        # What went wrong is known by now; before, TensorFlow may not have been imported.
        import tensorflow as tf

        gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
        gone += (tf.errors.DeadlineExceededError, tf.errors.InternalError)
        if machines and isinstance(error, gone):
            raise UserError(
                f"another worker is gone or cannot be reached ({type(error).__name__}): {RUN_AGAIN}"
            ) from error
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise UserError("out of memory: try a smaller batch, or fewer draws of z") from error
        raise


def _built(strategy, machines, timeout):
    import tensorflow as tf

    if machines:
        # First of all: TensorFlow takes this before it has looked at any device.
        options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
        made = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        return Team(made, machines[1])
    devices = tf.config.list_logical_devices("GPU")
    if strategy == "mirrored" or (strategy == "auto" and len(devices) > 1):
        devices = devices or tf.config.list_logical_devices("CPU")
        return Team(tf.distribute.MirroredStrategy([device.name for device in devices]))
    return Team()


class Team:
    """The replicas of a run: one without a strategy.

    Args:
        strategy: a `tf.distribute.Strategy`, or None.
        index: of this worker.
    """

    def __init__(self, strategy=None, index=0):
        self.strategy, self.chief = strategy, index == 0
        self.replicas = strategy.num_replicas_in_sync if strategy else 1
        self._local = len(strategy.extended.worker_devices) if strategy else 1

    def scope(self):
        """Returns the context in which variables are made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def total(self, values):
        """Returns the sum of `values`, an array, over all workers: on each the same."""
        import tensorflow as tf

        if self.replicas == self._local:
            return values

        def given(context):
            first = context.replica_id_in_sync_group % self._local == 0
            return tf.constant(values) * int(first)

        each = self.strategy.experimental_distribute_values_from_function(given)
        return self.strategy.reduce("SUM", each, axis=None).numpy()

    def any(self, flag):
        """Whether `flag` is true on any worker; each of them has to call this."""
        return bool(self.total(np.array([float(flag)]))[0])

    def wait(self):
        """Returns once every worker has come here."""
        self.any(False)

    def require_same(self, numbers, message):
        """Raises a `UserError` on every worker where the chief's numbers are not those of all."""
        numbers = np.array(numbers, np.float64)
        if self.any((self.total(numbers * self.chief) != numbers).any()):
            raise UserError(message)
