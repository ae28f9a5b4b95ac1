"""How the workers of a run find each other: TF_CONFIG, and a greeting before TensorFlow starts.

    cluster = from_environment("auto")         # a Cluster, or None for one machine
    greet(cluster, timeout=120)                # returns once every worker is there

TensorFlow's own constructor waits more than ten minutes for a worker that is missing, and cannot
be interrupted. So the workers first tell each other that they are there, over plain sockets.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from support.errors import UserError

GREETING = b"train.py\n"
EXPECTED = (
    'expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
)


class Address(NamedTuple):
    """Where a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run.

    Attributes:
        addresses: of all workers, the chief's first.
        index: of this worker.
    """

    addresses: tuple[Address, ...]
    index: int


def from_environment(strategy: str) -> Cluster | None:
    """Reads the environment variable TF_CONFIG where the strategy is for many machines.

    Args:
        strategy: as `--strategy` names it.

    Returns:
        The cluster; None for one machine.

    Raises:
        UserError: TF_CONFIG is needed and missing, or does not describe a cluster of workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    if strategy == "multi_worker" and not text:
        raise UserError("the strategy multi_worker needs the environment variable TF_CONFIG")
    if strategy not in ("auto", "multi_worker") or not text:
        return None
    try:
        return _parsed(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"TF_CONFIG cannot be used ({error!r:.200}): {EXPECTED}") from error


def _parsed(content: dict) -> Cluster:
    """Returns the cluster that the content of TF_CONFIG describes; raises where it is none."""
    cluster, task = content["cluster"], content["task"]
    if set(cluster) != {"worker"} or task.get("type") != "worker":
        raise ValueError("no worker of a cluster of workers")
    addresses = []
    for text in cluster["worker"]:
        host, _, port = text.rpartition(":")
        # IPv6 and its brackets were not tried.
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", host) or not re.fullmatch("[0-9]{1,5}", port):
            raise ValueError(f"no address of a worker: {text!r:.80}")
        if not 0 < int(port) < 65536:
            raise ValueError(f"no port from 1 to 65535: {text!r:.80}")
        addresses.append(Address(host, int(port)))
    if len(set(addresses)) < len(addresses):
        raise ValueError("two workers have the same address")
    index = int(task["index"])
    if not 0 <= index < len(addresses):
        raise ValueError(f"no worker has the index {index}")
    return Cluster(tuple(addresses), index)


def greet(cluster: Cluster, timeout: float) -> None:
    """Returns once every worker is there: each tells the chief, which then tells all.

    Args:
        cluster: of this worker.
        timeout: seconds.

    Raises:
        UserError: one has not come within `timeout`, or the chief's port is in use.
    """
    deadline = time.monotonic() + timeout
    if cluster.index == 0:
        _gather(cluster, deadline)
        return
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(cluster.addresses[0], timeout=1) as connection:
                connection.sendall(_introduction(cluster, cluster.index))
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                if connection.recv(len(GREETING)) == GREETING:
                    return
        except OSError:
            pass  # not there yet
        time.sleep(0.05)
    raise _absent(cluster.addresses[:1], "did not answer")


def _gather(cluster: Cluster, deadline: float) -> None:
    """Waits for all other workers to call at the chief's address, then answers them."""
    chief = cluster.addresses[0]
    try:
        server = socket.create_server(("", chief.port))
    except OSError as error:
        reason = f"{chief} is no free port of this machine ({error.strerror})"
        raise UserError(f"TF_CONFIG: {reason}") from error
    waiting: dict[int, socket.socket] = {}
    expected = {_introduction(cluster, i): i for i in range(1, len(cluster.addresses))}
    with server, contextlib.ExitStack() as connections:
        while len(waiting) < len(expected):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                absent = sorted(set(expected.values()) - set(waiting))
                raise _absent([cluster.addresses[i] for i in absent], "never came") from None
            connections.enter_context(connection)
            connection.settimeout(0.5)
            # A visitor that says nothing or something else, or hangs up, is no worker.
            with contextlib.suppress(OSError):
                index = expected.get(connection.recv(100))
                if index is not None:
                    waiting[index] = connection
        for connection in waiting.values():
            with contextlib.suppress(OSError):
                connection.sendall(GREETING)


def _introduction(cluster: Cluster, index: int) -> bytes:
    """Returns what a worker says: its index, and a hash of the cluster as it knows it."""
    digest = hashlib.sha256(json.dumps(cluster.addresses).encode()).hexdigest()
    return f"{index} {digest}".encode()


def _absent(addresses: Sequence[Address], how: str) -> UserError:
    names = ", ".join(map(str, addresses))
    return UserError(f"the workers in TF_CONFIG did not all come in time: {names:.400} {how}")
