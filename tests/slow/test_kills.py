"""Kills, power cuts and signals in small: each is a program of its own for as long as one likes."""

import shutil
import signal

import pytest

from tests.slow import kills, power_cut, soak


def test_kills_at_chosen_moments_change_nothing(tmp_path):
    assert kills.soak(tmp_path, 4, most_chosen=4) == 0


def test_kills_at_random_moments_change_nothing():
    """Not even in the curves, as TensorBoard's three readers see them."""
    assert soak.main(["--kills", "2", "--epoch", "20", "--dataset", "digits"]) == 0


def test_what_a_power_cut_leaves_loads_and_continues(tmp_path):
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: no system calls to replay")
    assert power_cut.replay(tmp_path, most=5) == 0


def test_a_signal_at_random_moments_ends_with_one_line(tmp_path):
    assert kills.soak(tmp_path, 2, signum=signal.SIGTERM) == 0
