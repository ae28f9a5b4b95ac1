"""Power cuts at a few moments: tests/slow/power_cut.py in small."""

import shutil

import pytest

from tests.slow import power_cut


def test_what_a_power_cut_leaves_loads_and_continues(tmp_path):
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: no system calls to replay")
    assert power_cut.replay(tmp_path, most=8) == 0
