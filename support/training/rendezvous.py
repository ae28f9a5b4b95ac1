"""How the workers of a run find each other: TF_CONFIG, and a greeting before TensorFlow starts.

    cluster = from_environment("auto")         # a Cluster, or None for one machine
    greet(cluster, timeout=120)                # returns once all workers are there

The constructor of TensorFlow's strategy waits for a missing worker for more than ten minutes, and
cannot be interrupted. So the workers first contact each other over plain sockets.
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
        addresses: the addresses of all workers, the chief's first.
        index: the index of this worker.
    """

    addresses: tuple[Address, ...]
    index: int


def from_environment(strategy: str) -> Cluster | None:
    """Reads the environment variable TF_CONFIG if the strategy can use several machines.

    Args:
        strategy: the value of `--strategy`.

    Returns:
        The cluster; None for one machine.

    Raises:
        UserError: TF_CONFIG is needed but missing, or does not describe a cluster of workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    if strategy == "multi_worker" and not text:
        raise UserError(
            f"--strategy multi_worker needs the environment variable TF_CONFIG, which is not "
            f"set: {EXPECTED}"
        )
    if strategy not in ("auto", "multi_worker") or not text:
        return None
    try:
        return _parsed(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        is_missing = isinstance(error, KeyError)
        reason = f"the key {error} is missing" if is_missing else str(error)
        raise UserError(f"TF_CONFIG cannot be used ({reason:.200}): {EXPECTED}") from error


def _parsed(content: dict) -> Cluster:
    """Returns the cluster that the content of TF_CONFIG describes; raises if it is not one."""
    cluster, task = content["cluster"], content["task"]
    if set(cluster) != {"worker"} or task.get("type") != "worker":
        raise ValueError("all tasks of the cluster must be of type worker")
    addresses = []
    for text in cluster["worker"]:
        host, _, port = text.rpartition(":")
        # IPv6 addresses in brackets are refused, since they were never tried.
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", host) or not re.fullmatch("[0-9]{1,5}", port):
            raise ValueError(f"{text!r:.80} is not host:port")
        if not 0 < int(port) < 65536:
            raise ValueError(f"the port in {text!r:.80} is not from 1 to 65535")
        addresses.append(Address(host, int(port)))
    if len(set(addresses)) < len(addresses):
        raise ValueError("two workers have the same address")
    if not re.fullmatch("[0-9]{1,9}", str(task["index"])):
        raise ValueError(f"the index {task['index']!r:.80} is not a whole number")
    index = int(task["index"])
    if index >= len(addresses):
        raise ValueError(f"there is no worker with index {index}")
    if content.get("rpc_layer", "grpc") != "grpc":
        raise ValueError(f"rpc_layer is {content['rpc_layer']!r:.80}, only grpc is supported")
    return Cluster(tuple(addresses), index)


def greet(cluster: Cluster, timeout: float) -> None:
    """Returns once all workers are there: each contacts the chief, which then answers them all.

    Args:
        cluster: the cluster of this worker.
        timeout: seconds to wait.

    Raises:
        UserError: a worker is missing after `timeout` seconds, the port of this worker is in use,
            or a host is unknown.
    """
    _require_known_hosts(cluster)
    deadline = time.monotonic() + timeout
    with _listening(cluster) as server:
        if cluster.index == 0:
            _gather(cluster, server, deadline)
            return
    # Another worker only had to see that its port is free.
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


def _require_known_hosts(cluster: Cluster) -> None:
    """Raises a `UserError` if a host has no address; TensorFlow would wait for it."""
    for host in {address.host for address in cluster.addresses}:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"TF_CONFIG: the host {host:.80} is unknown ({reason}): correct its name"
            ) from error


def _listening(cluster: Cluster) -> socket.socket:
    """Returns a socket that listens on this worker's port, which TensorFlow will need."""
    address = cluster.addresses[cluster.index]
    try:
        return socket.create_server(("", address.port))
    except OSError as error:
        raise UserError(
            f"TF_CONFIG: cannot listen on {address} ({error.strerror}): choose a free port of this "
            "machine"
        ) from error


def _gather(cluster: Cluster, server: socket.socket, deadline: float) -> None:
    """Waits until all other workers have contacted the chief, then answers them.

    Args:
        cluster: the cluster of the chief.
        server: listens on the chief's port.
        deadline: when to stop waiting, on the monotonic clock.
    """
    waiting: dict[int, socket.socket] = {}
    expected = {_introduction(cluster, i): i for i in range(1, len(cluster.addresses))}
    with contextlib.ExitStack() as connections:
        while len(waiting) < len(expected):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                absent = sorted(set(expected.values()) - set(waiting))
                raise _absent([cluster.addresses[i] for i in absent], "never connected") from None
            connections.enter_context(connection)
            connection.settimeout(0.5)
            # A client that says nothing or something else, or hangs up, is not a worker.
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
    return UserError(
        f"timed out waiting for workers in TF_CONFIG: {names:.400} {how}: start all workers, or "
        "raise --cluster_timeout"
    )
