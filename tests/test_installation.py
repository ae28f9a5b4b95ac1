"""support/installation.py: what a user sees with another Python, or before `pip install`."""

import os
import re
import shutil
import signal
import subprocess
import sys
import venv

import pytest

from support import installation
from tests.helpers import ROOT

SCRIPTS = ("train.py", "eval.py", "eval_genresult.py")


def test_here_nothing_is_missing():
    assert installation.problem(sys.version_info[:2]) == ""


def test_an_old_python_is_named_with_those_that_are_expected():
    found = installation.problem((3, 10))
    assert found.startswith("this is Python 3.10, expected Python 3.11 to 3.13: create")


def test_a_newer_python_is_fine_where_tensorflow_is_installed(monkeypatch):
    assert installation.problem((3, 99)) == ""
    monkeypatch.setattr(installation, "_is_installed", lambda name: name != "tensorflow")
    assert "TensorFlow has no package for Python 3.99, expected" in installation.problem((3, 99))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(installation, "_is_installed", lambda name: name not in ("rich", "PIL"))
    found = installation.problem((3, 12))
    assert f"not installed for {sys.executable}: rich, PIL; activate" in found
    assert "pip install -r requirements.txt" in found


def test_the_list_is_that_of_the_requirements():
    with open(f"{ROOT}/requirements.txt", encoding="utf-8") as file:
        required = re.findall(r"^([A-Za-z][\w-]*)", file.read(), re.M)
    imported = {"scikit-learn": "sklearn", "pillow": "PIL"}
    assert {imported.get(name, name) for name in required} == set(installation.MODULES)


@pytest.fixture(scope="module")
def empty_python(tmp_path_factory):
    """A Python without any package."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, symlinks=True)
    return str(folder / "bin" / "python")


@pytest.mark.skipif(sys.platform == "win32", reason="the path of the interpreter is another one")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_before_pip_install_says_so_in_one_line(empty_python, script, tmp_path):
    run = subprocess.run(
        [empty_python, f"{ROOT}/{script}", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(rf"{script}: error: not installed for .*: numpy, .*\n", run.stderr)


def is_usable(python):
    return bool(shutil.which(python)) and subprocess.run([python, "-c", ""]).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_any_older_python_can_read_a_script_as_far_as_the_check(script):
    """Tried with the oldest one at hand, if there is any."""
    names = ("python3.8", "python3.9", "python3.10")
    old = next((name for name in names if is_usable(name)), None)
    if old is None:
        pytest.skip("no older Python here")
    run = subprocess.run([old, f"{ROOT}/{script}"], capture_output=True, text=True)
    assert run.returncode == 2 and "expected Python 3.11 to 3.13" in run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_while_modules_are_imported_costs_one_line(script, tmp_path):
    """Python stands in the first import after the check."""
    (tmp_path / "argparse.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)")
    # Site-packages come after PYTHONPATH, and so does the library of Python itself.
    run = subprocess.run(
        [sys.executable, f"{ROOT}/{script}"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == -signal.SIGINT and run.stderr == f"{script}: interrupted\n"
