"""Readers of a run, and full disks, in small: each is a program of its own."""

import subprocess

import pytest

from tests.slow import full_disk, readers


def test_figures_of_a_run_in_progress_are_those_of_one_save(tmp_path):
    assert readers.compared(tmp_path, 20) == 0


def test_a_full_disk_at_random_moments_loses_nothing(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert full_disk.soak(tmp_path, 2) == 0
