"""Lets contenders work in turn (A B C A B C), and times them.

    timed = take_turns({"ours": Entry("ours"), "jax": Entry("jax_scan", {"batch": 1024})}, args)
    timed["ours"].median

Each contender runs in a process of its own (bench/contenders.py), so that their thread pools do not
compete. It waits while the others work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from bench import common
from bench.contenders import EXIT_ABSENT
from support.errors import UserError

WARM_UP = 2


class Entry(NamedTuple):
    """Something to be timed.

    Attributes:
        contender: a name of bench/contenders.py.
        options: flags of that script, by name.
    """

    contender: str
    options: Mapping[str, Any] = {}


class Turn(NamedTuple):
    """The time and the loss of one turn; the loss is None if there is none."""

    seconds: float
    loss: float | None


class Timed(NamedTuple):
    """The times and the loss of several turns.

    Attributes:
        seconds: the time of each turn after the warm-up.
        loss: the loss of the last turn of the warm-up.
    """

    seconds: list[float]
    loss: float | None

    @property
    def median(self) -> float:
        """The median seconds of a turn."""
        return statistics.median(self.seconds)


class TakesTurns(Protocol):
    """Anything that can take turns."""

    def turn(self) -> Turn:
        """Works once and returns what the turn took."""


class Contender:
    """A process of bench/contenders.py.

    Args:
        entry: the contender and its options.
        args: this script's flags, with the data flags.

    Attributes:
        start_up_seconds: the time until it was ready for its first turn.

    Raises:
        ModuleNotFoundError: its framework is not installed.
        UserError: it failed for another reason.
    """

    def __init__(self, entry: Entry, args: argparse.Namespace) -> None:
        self._name = entry.contender
        # Closed by `close`: it lives as long as the process.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        started = time.perf_counter()
        self._process = subprocess.Popen(
            _command(entry, args),
            text=True,
            bufsize=1,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._read_answer()
        self.start_up_seconds = time.perf_counter() - started

    def turn(self) -> Turn:
        """Lets it work once."""
        answer = self.ask()
        return Turn(answer["seconds"], answer["loss"])

    def ask(self) -> dict[str, float]:
        """Lets it work once; returns its whole answer."""
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.write("\n")
        return self._read_answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _read_answer(self) -> dict[str, float]:
        assert self._process.stdout is not None  # it is a pipe
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or [f"exit code {code}"]
        self.close()
        if code == EXIT_ABSENT:
            raise ModuleNotFoundError(lines[-1])
        raise UserError(f"contender {self._name} failed: {lines[-1]}")


def _command(entry: Entry, args: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "bench.contenders", entry.contender]
    command += common.data_flags(args)
    for flag, value in entry.options.items():
        values = value if isinstance(value, tuple) else (value,)
        command += [f"--{flag}", *map(str, values)]
    return command


def start(entry: Entry, args: argparse.Namespace, label: str) -> Contender | None:
    """Starts a contender; if its framework is not installed, says so and returns None."""
    try:
        return Contender(entry, args)
    except ModuleNotFoundError as error:
        print(f"skipped {label}: {error}; {common.ADVICE}")
        return None


def take_turns(
    entries: Mapping[str, Entry],
    args: argparse.Namespace,
    warm_up: int = WARM_UP,
    others: Mapping[str, TakesTurns] | None = None,
) -> dict[str, Timed]:
    """Lets contenders work in turn.

    Args:
        entries: the contenders to time, by label.
        args: this script's flags, with `repeat`, the number of turns of each, and the data flags.
        warm_up: the number of turns of each before those that count.
        others: what else takes turns, by label; it is not closed.

    Returns:
        The times of each, by label, without those that are not installed.
    """
    started: dict[str, Contender] = {}
    try:
        for label, entry in entries.items():
            contender = start(entry, args, label)
            if contender:
                started[label] = contender
        return _timed({**started, **(others or {})}, args.repeat, warm_up)
    finally:
        for contender in started.values():
            contender.close()


def _timed(contenders: Mapping[str, TakesTurns], repeat: int, warm_up: int) -> dict[str, Timed]:
    found = {}
    for label, contender in contenders.items():
        losses = [contender.turn().loss for _ in range(warm_up)]
        found[label] = Timed([], losses[-1])
    for _ in range(repeat):
        for label, contender in contenders.items():
            found[label].seconds.append(contender.turn().seconds)
    return found


def median_seconds(function: Callable[[], object], repeat: int) -> float:
    """Returns the median wall time of a call, after a first call that compiles."""
    function()
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def seconds_range(seconds: Sequence[float]) -> str:
    """Returns the smallest and the largest time, as a text for a table."""
    return f"({min(seconds):.2f}-{max(seconds):.2f})"
