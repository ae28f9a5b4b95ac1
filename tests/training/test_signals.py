"""support/training/signals.py: the first signal is remembered, and the second ends the run."""

import os
import signal

import pytest

from support.errors import Interrupted
from support.training.signals import Signals

EACH = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


@EACH
def test_a_second_signal_gives_up_saving(signum):
    with Signals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), signum)
        assert signals.received == signum
        with pytest.raises(Interrupted, match="without saving") as raised:
            os.kill(os.getpid(), signum)
        assert raised.value.code == 128 + signum


def test_handlers_are_as_before_after_the_block():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(ZeroDivisionError), Signals():
        assert all(signal.getsignal(number) != before[number] for number in before)
        raise ZeroDivisionError
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_at_a_terminal_is_told_what_happens(monkeypatch, terminal):
    written = []
    monkeypatch.setattr(os, "isatty", lambda descriptor: terminal)
    monkeypatch.setattr(os, "write", lambda descriptor, text: written.append((descriptor, text)))
    with Signals():
        os.kill(os.getpid(), signal.SIGINT)
    expected = (
        b"\nInterrupted: the run will be saved after the current steps. "
        b"Interrupt again to stop without saving.\n"
    )
    assert written == ([(2, expected)] if terminal else [])


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_a_request_to_save_is_taken_once():
    with Signals() as signals:
        assert not signals.take_save_request()
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received is None
        assert signals.take_save_request() and not signals.take_save_request()
