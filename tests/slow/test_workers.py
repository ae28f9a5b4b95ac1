"""support/training/workers.py: two workers as processes, four devices in one, and faults."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.helpers import ROOT, SMALL, STARTED, arrays_of, last_line, points, same_bits, train

# As runs of one and two epochs begin.
RECIPE = ["--optimizer", "nadamw", "--initial_weights", "adapted"]
RUN = [*SMALL, "--epoch", "6", "--save_every", "0", *RECIPE]


def free_addresses(count=2):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in sockets]
    for listener in sockets:
        listener.close()
    return addresses


def worker(index, addresses, folder, *argv, weights="weights"):
    """Starts one worker in its own folder, with the weights and curves in a shared folder."""
    place = folder / f"worker{index}"
    place.mkdir(parents=True, exist_ok=True)
    task = {"type": "worker", "index": index}
    folders = ["--save_weight_dir", folder / weights, "--log_dir", folder / "log"]
    process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "train.py"), *RUN, *map(str, folders), *argv],
        cwd=place,
        env={
            **os.environ,
            "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def ended(processes, seconds=600):
    """Waits for the processes; returns their exit codes and what they printed."""
    printed = [process.communicate(timeout=seconds) for process in processes]
    return [process.returncode for process in processes], printed


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """An uninterrupted run of two workers."""
    folder, addresses = tmp_path_factory.mktemp("two"), free_addresses()
    codes, printed = ended([worker(index, addresses, folder) for index in (1, 0)])
    assert codes == [0, 0], printed
    return folder, printed


def test_two_workers_compute_the_run_that_one_does(two, tmp_path):
    folder, ((quiet, _), (chief, _)) = two
    assert train(tmp_path, "--epoch", "6", "--strategy", "one", *RECIPE) == 0
    for part in ("train", "val"):
        one, shared = (points(run / "log" / part) for run in (tmp_path, folder))
        assert one.keys() == shared.keys()
        for tag, curve in one.items():
            np.testing.assert_allclose(shared[tag], curve, rtol=1e-4, err_msg=f"{part} {tag}")
    for value, expected in zip(
        arrays_of(folder / "weights"), arrays_of(tmp_path / "weights"), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-2, atol=1e-4)
    assert "Epoch 6/6" in chief and "Epoch" not in quiet
    # Only the chief writes, and only the run: there is nothing that the other might have left.
    assert not list(folder.glob("worker*/*"))
    left = {path.name for path in (folder / "weights").iterdir()}
    assert left == {"vae.keras", ".weights.lock"}


def test_garbage_at_the_ports_of_a_run_changes_no_bit(two, tmp_path):
    """Random bytes reach both ports from the start, half of them after HTTP/2's greeting."""
    addresses, draw, over = free_addresses(), random.Random(0), threading.Event()
    heard = 0

    def shout():
        nonlocal heard
        while not over.wait(0.005):
            host, port = draw.choice(addresses).split(":")
            greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * draw.randint(0, 1)
            place = host, int(port)
            with contextlib.suppress(OSError), socket.create_connection(place, 1) as visitor:
                visitor.sendall(greeting + draw.randbytes(draw.randint(1, 5000)))
                heard += 1

    thread = threading.Thread(target=shout)
    workers = [worker(index, addresses, tmp_path) for index in (1, 0)]
    thread.start()
    codes, printed = ended(workers)
    over.set()
    thread.join()
    assert codes == [0, 0] and heard > 100, (heard, printed)
    same_bits(tmp_path / "weights", two[0] / "weights")


def test_a_killed_worker_ends_the_other_and_both_resume_to_the_same_bits(two, tmp_path):
    """The chief is killed, which is the worker that writes."""
    killed, addresses = 0, free_addresses()
    workers = {index: worker(index, addresses, tmp_path) for index in (1, 0)}
    for line in workers[0].stdout:
        if line.startswith("Epoch 2/"):
            break
    workers[killed].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    survivor = workers[1 - killed]
    _, stderr = survivor.communicate(timeout=300)
    assert survivor.returncode == 2 and time.monotonic() - killed_at < 60
    assert "Traceback" not in stderr
    assert last_line(stderr).startswith(
        "train.py: error: another worker has ended or cannot be reached"
    )
    workers[killed].communicate()
    codes, printed = ended([worker(index, addresses, tmp_path) for index in (1, 0)])
    assert codes == [0, 0], printed
    assert "Continuing" in printed[1][0]
    same_bits(tmp_path / "weights", two[0] / "weights")


def test_a_signal_to_one_worker_saves_and_ends_both(tmp_path):
    addresses = free_addresses()
    workers = [worker(index, addresses, tmp_path, "--epoch", "5000") for index in (0, 1)]
    for line in workers[0].stdout:
        if line.startswith("Epoch 2/"):
            break
    workers[1].send_signal(signal.SIGTERM)
    codes, printed = ended(workers)
    assert codes == [143, 143], printed
    assert all("interrupted; saved in" in last_line(stderr) for _, stderr in printed)


def test_a_worker_that_never_comes(tmp_path):
    addresses = free_addresses()
    started = time.monotonic()
    codes, ((_, stderr),) = ended([worker(0, addresses, tmp_path, "--cluster_timeout", "2")])
    assert codes == [2] and time.monotonic() - started < 60
    line = last_line(stderr)
    assert "timed out waiting for workers" in line and addresses[1] in line
    assert "Traceback" not in stderr


def test_workers_that_know_other_clusters_end_with_one_line(tmp_path):
    """One knows two machines and the other three: neither waits for ever."""
    addresses = free_addresses(3)
    quick = ["--cluster_timeout", "8"]
    started = time.monotonic()
    workers = [worker(0, addresses[:2], tmp_path, *quick), worker(1, addresses, tmp_path, *quick)]
    codes, printed = ended(workers)
    assert codes == [2, 2], printed
    assert time.monotonic() - started < 60
    assert all("timed out waiting for workers" in last_line(stderr) for _, stderr in printed)


def test_folders_that_are_not_shared_are_refused(tmp_path):
    addresses = free_addresses()
    workers = [worker(i, addresses, tmp_path, weights=f"weights{i}") for i in (0, 1)]
    codes, printed = ended(workers)
    assert codes == [2, 2], printed
    for _, stderr in printed:
        line = last_line(stderr)
        assert "the workers do not see the same run in" in line and "Traceback" not in stderr
    assert not (tmp_path / "weights1").exists()


FOUR_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
import train
argv = sys.argv[1:]
assert train.main([*argv, "--strategy", "mirrored", "--batch", "18"]) == 2
sys.exit(train.main([*argv, "--strategy", "mirrored"]))
"""


def test_four_devices_compute_the_run_that_one_does(tmp_path):
    argv = ["--epoch", "3", "--binarize", "dynamic"]
    assert train(tmp_path / "one", *argv) == 0
    folders = ["--save_weight_dir", tmp_path / "four" / "weights"]
    folders += ["--log_dir", tmp_path / "four" / "log"]
    run = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, *SMALL, *argv, *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    assert "--batch 18 is not a multiple of the number of devices, 4: " in run.stderr
    for part in ("train", "val"):
        one, four = (points(tmp_path / name / "log" / part) for name in ("one", "four"))
        for tag, curve in one.items():
            np.testing.assert_allclose(four[tag], curve, rtol=1e-4, err_msg=tag)
