"""Fixtures: a small trained folder, and real MNIST if it is available.

python -m pytest            # after a change; about five minutes
python -m pytest -m slow    # the other tests; those on real MNIST need the variable MNIST_DIR
"""

import os
import pathlib
import shutil
import signal

import pytest

# MNIST_DIR is renamed, so that only the tests that ask for real MNIST see it. The processes of
# pytest-xdist inherit the new name.
MNIST_DIR = os.environ.setdefault("MNIST_DIR_OF_TESTS", os.environ.pop("MNIST_DIR", ""))

from support import startup  # noqa: E402
from tests import helpers, windows  # noqa: E402

startup.import_tensorflow()

# A shell makes background processes ignore Ctrl-C, and `nohup` makes them ignore a dropped
# connection. The scripts respect that, so tests of signals would see none.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser):
    parser.addoption("--windows", action="store_true", help="emulate Windows (tests/windows.py)")


@pytest.fixture(autouse=True)
def system(request, monkeypatch):
    """Lets the project meet an emulated Windows where `--windows` asks for it."""
    if request.config.getoption("--windows"):
        windows.emulate(monkeypatch)


@pytest.fixture
def folders_can_be_synced(request):
    """Skips a test of what only file systems do whose folders can be synced to disk."""
    if os.name == "nt" or request.config.getoption("--windows"):
        pytest.skip("Windows cannot sync folders")


def pytest_collection_modifyitems(items):
    for item in items:
        if pathlib.Path(__file__).parent / "slow" in item.path.parents:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Kills the processes that a test has left running, as a failing test may do."""
    yield
    while helpers.STARTED:
        process = helpers.STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def mnist_dir():
    """The folder with real MNIST; skips the test if there is none."""
    if not MNIST_DIR:
        pytest.skip("MNIST_DIR is not set: no real MNIST here")
    return MNIST_DIR


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The weights folder of a finished small run on digits. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("trained")
    assert helpers.train(folder, "--epoch", "2") == 0
    return folder / "weights"


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained folder, to be damaged."""
    return shutil.copytree(trained, tmp_path / "copy")
