"""support/training/watchdog.py: processes that hang in a call which no handler can interrupt."""

import signal
import subprocess
import sys
import threading

import pytest

from support.training import watchdog
from tests.helpers import ROOT

# A foreign call that keeps its interpreter lock released and is restarted after each signal, as
# TensorFlow's constructor is: Python's handlers wait for its end.
HANGING = """
import ctypes, os, signal, sys
from support.training import watchdog
watchdog.GRACE_SECONDS = 0.2
signal.signal(signal.SIGTERM, lambda *_: None)
libc = ctypes.CDLL(None)
with watchdog.watched(float(sys.argv[1]), "the others did not come", os.dup(2)):
    print("in", flush=True)
    left = 60
    while left:
        left = libc.sleep(left)
"""
unix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")


def start(seconds):
    command = [sys.executable, "-c", HANGING, str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    assert process.stdout.readline() == "in\n"
    return process


@unix_only
def test_a_call_that_takes_too_long_ends_with_one_line():
    process = start(0.3)
    assert process.communicate(timeout=30)[1] == "train.py: error: the others did not come\n"
    assert process.returncode == 2


@unix_only
def test_a_signal_ends_a_call_that_no_handler_can_interrupt():
    process = start(60)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[1] == "train.py: interrupted\n"
    assert process.returncode == 143


def test_a_block_that_ends_in_time_leaves_nothing_behind():
    threads, before = threading.active_count(), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with watchdog.watched(30, "", 2):
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    after = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(after)
    assert after == before


def test_an_error_in_the_block_passes():
    with pytest.raises(ZeroDivisionError), watchdog.watched(30, "", 2):
        _ = 1 / 0


def test_in_another_thread_nothing_is_watched():
    done = []

    def work():
        with watchdog.watched(0.01, "", 2):
            done.append(threading.active_count())

    count = threading.active_count()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [count + 1]
