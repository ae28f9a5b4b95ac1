"""Which devices and machines share a run, and how they agree: TensorFlow's strategies.

    machines = cluster.described(os.environ)          # from TF_CONFIG, or None
    team = cluster.join("multi_worker", machines, 120)
    team.total(np.array([1.0]))                       # the same sum on every worker

TensorFlow's own engine moves every number between devices and machines; nothing here does, but for
the hello that tells a worker that its peers are there, before TensorFlow may wait for them.
"""

import contextlib
import json
import socket
import socketserver
import threading
import time

import numpy as np

from flags import UserError, quiet_tensorflow

HELLO = b"train.py\n"
RUN_AGAIN = (
    "start every worker again with the same command, and the run goes on from its checkpoint"
)


def described(environment):
    """Reads the environment variable TF_CONFIG.

    Returns:
        The addresses of the workers and the index of this one; None where it is not set.

    Raises:
        UserError: it is set, and does not describe a cluster of workers.
    """
    text = environment.get("TF_CONFIG", "")
    if not text:
        return None
    how = (
        'expected {"cluster": {"worker": ["host:port", ...]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        content = json.loads(text)
        cluster, task = content["cluster"], content["task"]
        addresses, index = cluster["worker"], int(task["index"])
        ports = [_port(address) for address in addresses]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"TF_CONFIG can't be read ({error!r}): {how}") from error
    unfit = set(cluster) != {"worker"} or task.get("type") != "worker" or len(addresses) < 1
    # Bracketed ones: only IPv4 and names that resolve to it were tried.
    unfit |= any("[" in address for address in addresses)
    if unfit or not 0 <= index < len(addresses) or not all(0 < port < 65536 for port in ports):
        raise UserError(f"TF_CONFIG describes no worker of a cluster of workers: {how}")
    return addresses, index


def machines(strategy, environment):
    """Returns what `described` finds where `--strategy` asks for it, else None."""
    found = described(environment) if strategy in ("auto", "multi_worker") else None
    if strategy == "multi_worker" and not found:
        raise UserError("--strategy multi_worker needs the environment variable TF_CONFIG: set it")
    return found


def wait_for_peers(addresses, index, timeout):
    """Returns once every worker has met every other; by then TensorFlow may wait for them itself.

    Its strategies block for many minutes where a peer is missing, and can't be interrupted then.

    Raises:
        UserError: a peer has not come within `timeout` seconds, or the own address can't be used.
    """
    peers = set(range(len(addresses))) - {index}
    met, greeted_by = set(), set()

    class Hello(socketserver.StreamRequestHandler):
        timeout = 1

        def handle(self):
            # Whoever says nothing, or leaves, is no worker.
            with contextlib.suppress(OSError):
                name = self.rfile.readline(20).strip()
                self.wfile.write(HELLO)
                if name.isdigit():
                    greeted_by.add(int(name))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        block_on_close = False

        def handle_error(self, *_):
            """A visitor's fault is not ours to print."""

    try:
        server = Server(("", _port(addresses[index])), Hello)
    except OSError as error:
        raise UserError(
            f"TF_CONFIG: this worker's address {addresses[index]} can't be used "
            f"({error.strerror}): name a free port of this machine"
        ) from error
    deadline = time.monotonic() + timeout
    with server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            while met & greeted_by != peers:
                met |= {peer for peer in peers - met if _greet(addresses[peer], index)}
                if time.monotonic() > deadline:
                    absent = ", ".join(addresses[peer] for peer in sorted(peers - greeted_by))
                    raise UserError(
                        "the workers in TF_CONFIG did not all come within --cluster_timeout "
                        f"{timeout:g} seconds; missing: {absent or 'one of them'}: {RUN_AGAIN}"
                    )
                time.sleep(0.05)
        finally:
            server.shutdown()


def _port(address):
    return int(address.rpartition(":")[2])


def _greet(address, index):
    """Tells the worker at `address` that worker `index` is there; whether it answered."""
    try:
        host = address.rpartition(":")[0]
        with socket.create_connection((host, _port(address)), timeout=1) as connection:
            connection.sendall(f"{index}\n".encode())
            return connection.recv(len(HELLO)) == HELLO
    except OSError:
        return False


def join(strategy, machines, timeout):
    """Builds the strategy that `--strategy` names; waits for the other workers, if any.

    Args:
        strategy: auto, one, mirrored or multi_worker.
        machines: as `described` returns them.
        timeout: seconds to wait for peers.

    Returns:
        A `Team`.
    """
    if machines:
        wait_for_peers(*machines, timeout)
    return quiet_tensorflow(lambda: _built(strategy, machines, timeout))


def _built(strategy, machines, timeout):
    import tensorflow as tf

    if machines:
        # First of all: TensorFlow takes this before it has looked at any device.
        options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
        with _peers():
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
        self.strategy, self.index = strategy, index
        self.replicas = strategy.num_replicas_in_sync if strategy else 1
        self.workers = self.replicas // len(strategy.extended.worker_devices) if strategy else 1

    @property
    def chief(self):
        """Whether this worker is the one that writes."""
        return self.index == 0

    def scope(self):
        """Returns the context in which variables are made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def total(self, values):
        """Returns the sum of `values`, an array, over all workers: on each the same."""
        import tensorflow as tf

        if self.workers == 1:
            return values
        local = len(self.strategy.extended.worker_devices)

        def given(context):
            first = context.replica_id_in_sync_group % local == 0
            return tf.constant(values) * int(first)

        each = self.strategy.experimental_distribute_values_from_function(given)
        return self.strategy.reduce("SUM", each, axis=None).numpy()

    def any(self, flag):
        """Whether `flag` is true on any worker."""
        return bool(self.total(np.array([float(flag)]))[0])

    def wait(self):
        """Returns once every worker has come here."""
        self.any(False)

    def require_same(self, number, message):
        """Raises a `UserError` on every worker where the chief's `number` is not that of all."""
        of_chief = self.total(np.array([float(number) if self.chief else 0.0]))[0]
        if self.any(of_chief != number):
            raise UserError(message)

    def peers(self):
        """Returns a context that turns the end of a peer into a `UserError`."""
        return _peers() if self.workers > 1 else contextlib.nullcontext()


@contextlib.contextmanager
def _peers():
    import tensorflow as tf

    gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    gone += (tf.errors.DeadlineExceededError, tf.errors.InternalError)
    try:
        yield
    except gone as error:
        raise UserError(
            f"another worker is gone or can't be reached ({type(error).__name__}): {RUN_AGAIN}"
        ) from error
