"""The scripts from first to last under an emulation of Windows (tests/windows.py)."""

import json
import os

import numpy as np
import pytest

import eval as eval_script
import eval_genresult
from support import files
from support.storage import weights
from tests import windows
from tests.helpers import interrupted, same_run, train


@pytest.fixture
def emulated(monkeypatch):
    windows.emulate(monkeypatch)


def test_a_run_is_interrupted_continued_evaluated_and_generates(tmp_path, emulated, capsys):
    assert train(tmp_path / "whole", "--epoch", "2") == 0
    with interrupted(steps=15, steps_per_call=5):
        assert train(tmp_path / "parts", "--epoch", "2") == 143
    assert train(tmp_path / "parts", "--epoch", "2") == 0
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert "cannot sync folders to disk" in capsys.readouterr().err
    load = ("--load_weight_dir", str(tmp_path / "whole" / "weights"))
    output = ("--output_dir", str(tmp_path / "result"))
    assert eval_script.main([*load, *output, "--report"]) == 0
    metrics = json.loads((tmp_path / "result" / "metrics.json").read_text())
    assert np.isfinite(metrics["loss_total"])
    page = ("--page", str(tmp_path / "page.html"))
    assert eval_genresult.main([*load, *output, *page, "--num", "10"]) == 0
    assert len(np.load(tmp_path / "result" / "generated.npz")["images"]) == 10
    assert train(tmp_path / "whole", "--epoch", "1", "--overwrite") == 0
    assert weights.read_record(str(tmp_path / "whole" / "weights")).epochs_done == 1


def test_the_emulation_is_what_the_project_meets(tmp_path, emulated):
    """Otherwise the test above would show nothing."""

    def as_project(statement):
        exec(compile(f"import os\n{statement}", files.__file__, "exec"), {"where": str(tmp_path)})

    with pytest.raises(AttributeError):
        as_project("os.uname()")
    with pytest.raises(PermissionError):
        as_project("os.open(where, os.O_RDONLY)")
    with (tmp_path / "open").open("wb"), pytest.raises(PermissionError):
        as_project("os.remove(where + '/open')")
    with (tmp_path / "open").open("rb") as file, pytest.raises(OSError):
        os.fsync(file.fileno())
    as_project("os.remove(where + '/open')")
    assert os.uname()
