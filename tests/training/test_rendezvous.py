"""support/training/rendezvous.py: reading TF_CONFIG, and the greeting, between threads."""

import contextlib
import json
import socket
import struct
import threading
import time

import pytest

from support.errors import UserError
from support.training import rendezvous
from support.training.rendezvous import Address, Cluster


def free_addresses(count=2):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [Address("127.0.0.1", listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return tuple(addresses)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:99999"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:65536"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["[::1]:2222"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a: 1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [":1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        "null",
        "3",
        '"worker"',
        "[" * 100_000,
        '{"cluster": [], "task": {"type": "worker", "index": 0}}',
        '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [3]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:0"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:-1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": null}}',
        '{"cluster": {"worker": ["a:1"]}, "task": "worker"}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": true}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "\uff10"}}',
        '{"cluster": {"worker": ["a:\u0661"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0},'
        ' "rpc_layer": "grpc+x"}',
    ],
)
def test_a_tf_config_that_describes_no_worker_is_refused(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r"^TF_CONFIG cannot be used .*: expected \{"):
        rendezvous.from_environment("auto")


def test_a_key_that_tf_config_lacks_is_named(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1"]}}')
    with pytest.raises(UserError, match=r"cannot be used \(the key 'task' is missing\): expected"):
        rendezvous.from_environment("auto")


def test_tf_config_is_read_where_the_strategy_asks_for_it(monkeypatch):
    content = {"cluster": {"worker": ["a:1", "b:65535"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(content))
    expected = Cluster((Address("a", 1), Address("b", 65535)), 1)
    for strategy in ("auto", "multi_worker"):
        assert rendezvous.from_environment(strategy) == expected
    assert str(expected.addresses[0]) == "a:1"
    for strategy in ("one", "mirrored"):
        assert rendezvous.from_environment(strategy) is None
    monkeypatch.delenv("TF_CONFIG")
    assert rendezvous.from_environment("auto") is None
    with pytest.raises(UserError, match="multi_worker needs the environment variable TF_CONFIG"):
        rendezvous.from_environment("multi_worker")


def greeted(clusters, timeout):
    """Runs the greetings of several workers at once; returns their errors in order, '' for none."""
    errors = {}

    def one(number, its_cluster):
        try:
            rendezvous.greet(its_cluster, timeout)
            errors[number] = ""
        except UserError as error:
            errors[number] = str(error)

    threads = [threading.Thread(target=one, args=item) for item in enumerate(clusters)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(timeout=60)
    return [errors[number] for number in range(len(clusters))]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_workers_that_come_in_any_order_find_each_other(order):
    addresses = free_addresses(3)
    assert greeted([Cluster(addresses, index) for index in order], 20) == [""] * 3


def test_a_worker_that_never_comes_is_named():
    addresses = free_addresses(3)
    first, second = greeted([Cluster(addresses, 0), Cluster(addresses, 1)], 1)
    assert "timed out waiting for workers" in first
    assert f"{addresses[2]} never connected: start all workers" in first
    assert str(addresses[1]) not in first
    assert f"{addresses[0]} did not answer" in second


def test_workers_that_know_other_clusters_do_not_greet_each_other():
    addresses = free_addresses(3)
    errors = greeted([Cluster(addresses[:2], 0), Cluster(addresses, 1)], 1)
    assert all("timed out waiting for workers" in error for error in errors)


def test_visitors_that_say_nothing_or_hang_up_do_not_keep_a_worker(capfd):
    """A silent connection, one that sends garbage and one that resets; the peer never comes."""
    addresses = free_addresses()
    visitors = []

    def visit():
        time.sleep(0.3)
        visitors.append(socket.create_connection(addresses[0]))
        visitors.append(socket.create_connection(addresses[0]))
        visitors[-1].sendall(bytes(range(256)))
        reset = socket.create_connection(addresses[0])
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.close()

    thread = threading.Thread(target=visit)
    thread.start()
    with pytest.raises(UserError, match="timed out waiting for workers"):
        rendezvous.greet(Cluster(addresses, 0), 2)
    thread.join()
    assert len(visitors) == 2
    for visitor in visitors:
        visitor.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_in_use_is_named():
    with contextlib.closing(socket.create_server(("", 0))) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(
            UserError, match=f"TF_CONFIG: cannot listen on {address} .*: choose a free port"
        ):
            rendezvous.greet(Cluster((address, Address("127.0.0.1", 1)), 0), 1)


@pytest.mark.parametrize("index", [0, 1])
def test_a_host_that_nobody_knows_is_named_at_once(index):
    cluster = Cluster((Address("localhost", 1), Address("no-such-host.invalid", 2)), index)
    with pytest.raises(UserError, match=r"the host no-such-host.invalid is unknown \(.*: correct"):
        rendezvous.greet(cluster, timeout=60)


def test_a_worker_whose_port_is_in_use_is_told_so_at_once():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = Cluster((Address("127.0.0.1", 1), Address("127.0.0.1", port)), 1)
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1:{port} .*free port"):
            rendezvous.greet(cluster, timeout=60)


def test_a_message_about_thousands_of_workers_is_short():
    addresses = tuple(Address("127.0.0.1", 1 + number) for number in range(5500))
    assert len(str(rendezvous._absent(addresses, "never connected"))) < 600
