"""Kills at random moments: tests/slow/soak.py in small."""

from tests.slow import soak


def test_a_soak_in_small():
    """2 SIGKILLs at random moments, the same weights, curves and files."""
    assert soak.main(["--kills", "2", "--epoch", "40", "--dataset", "digits"]) == 0
