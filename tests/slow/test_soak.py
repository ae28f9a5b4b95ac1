"""Short versions of the soak tests, each of which is also a program that can run for longer."""

import shutil
import signal
import subprocess

import pytest

from tests.slow import full_disk, fuzz, hostile, kills, power_cut, readers, soak


def test_kills_at_chosen_moments_change_nothing(tmp_path):
    assert kills.soak(tmp_path, 8, most_chosen=8) == 0


def test_kills_at_random_moments_change_nothing():
    """Not even in the curves, as TensorBoard's three readers see them."""
    assert soak.main(["--kills", "2", "--epoch", "40", "--dataset", "digits"]) == 0


def test_what_a_power_cut_leaves_loads_and_continues(tmp_path):
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: no system calls to replay")
    assert power_cut.replay(tmp_path, most=8) == 0


def test_a_signal_at_random_moments_ends_with_one_line(tmp_path):
    assert kills.soak(tmp_path, 4, signum=signal.SIGTERM) == 0


def test_figures_of_a_run_in_progress_are_those_of_one_save(tmp_path):
    assert readers.compared(tmp_path, 40) == 0


def test_a_full_disk_at_random_moments_loses_nothing(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert full_disk.soak(tmp_path, 6) == 0


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_mutants_of_every_file_are_read_as_before_or_refused(kind, tmp_path):
    assert hostile.tried(tmp_path, kind, 60, seed=1) == 0


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_scripts_end_well_on_a_few_mutants_of_every_input(kind, tmp_path):
    for run, count in ((fuzz.as_process, 1), (fuzz.in_process, 3)):
        counts = fuzz.fuzz(kind, count, run, 1, str(tmp_path / run.__name__))
        assert not counts["failed"]
        assert counts["result"] + counts["refused"] == count
