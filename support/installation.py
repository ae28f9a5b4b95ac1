"""The first import of every script: says in one line what is missing, instead of a traceback.

A script that is started with another Python than the one that has its packages, or before they are
installed, would otherwise end in the traceback of some import. So this module can be read by older
versions of Python, and imports only what is part of Python.
"""

import importlib.util
import os
import sys
from typing import Tuple  # noqa: UP035  Python 3.8 has no tuple[int, int].

OLDEST_PYTHON = (3, 11)
# TensorFlow 2.21 has no packages for later versions.
NEWEST_PYTHON = (3, 13)
SCRIPTS = ("train.py", "eval.py", "eval_genresult.py")
# What requirements.txt installs, by the names under which it is imported.
MODULES = (
    "numpy",
    "tensorflow",
    "keras",
    "matplotlib",
    "tensorboard",
    "sklearn",
    "rich",
    "PIL",
    "filelock",
    "lazy_loader",
)


def problem(version: Tuple[int, int]) -> str:  # noqa: UP006
    """Returns what keeps the scripts from running, and what to do; empty if nothing does.

    Args:
        version: of Python, major and minor.
    """
    expected = f"expected Python {_dotted(OLDEST_PYTHON)} to {_dotted(NEWEST_PYTHON)}"
    advice = "create a virtual environment with one of them and install requirements.txt in it"
    if version < OLDEST_PYTHON:
        return f"this is Python {_dotted(version)}, {expected}: {advice}"
    missing = [name for name in MODULES if not _is_installed(name)]
    if "tensorflow" in missing and version > NEWEST_PYTHON:
        return f"TensorFlow has no package for Python {_dotted(version)}, {expected}: {advice}"
    if missing:
        return (
            f"not installed for {sys.executable}: {', '.join(missing)}; activate the virtual "
            "environment, or run python -m pip install -r requirements.txt"
        )
    return ""


def _dotted(version: Tuple[int, int]) -> str:  # noqa: UP006
    return ".".join(map(str, version))


def _is_installed(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def require() -> None:
    """Ends the process with one line and exit code 2 if the scripts cannot run."""
    found = problem(sys.version_info[:2])
    if found:
        script = os.path.basename(sys.argv[0]) or "python"
        print(f"{script}: error: {found}", file=sys.stderr)
        raise SystemExit(2)


def _say_interrupted(kind, error, traceback):  # type: ignore[no-untyped-def]
    """Shows one line if Ctrl-C is pressed before `main` runs, while modules are imported."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


require()
if os.path.basename(sys.argv[0]) in SCRIPTS:
    sys.excepthook = _say_interrupted
