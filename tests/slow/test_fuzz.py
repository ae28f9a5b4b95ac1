"""Damaged and hostile files in small: each is a program of its own for as long as one likes."""

import pytest

from tests.slow import fuzz, hostile


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_mutants_of_every_file_are_read_as_before_or_refused(kind, tmp_path):
    assert hostile.tried(tmp_path, kind, 40, seed=1) == 0


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_scripts_end_well_on_a_few_mutants_of_every_input(kind, tmp_path):
    runs = [fuzz.in_process]
    if kind == "weights":
        runs.append(fuzz.as_process)
    for run in runs:
        counts = fuzz.fuzz(kind, 1, run, 1, str(tmp_path))
        assert not counts["failed"]
        assert counts["result"] + counts["refused"] == 1
