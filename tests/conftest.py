"""What tests share: a small trained folder, real MNIST where it is, and scripts run as a user does.

python -m pytest            # everything; tests on real MNIST where MNIST_DIR names it
"""

import os
import shutil
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
# Set aside, so that only the tests that ask for real MNIST see it.
MNIST_DIR = os.environ.pop("MNIST_DIR", "")

import flags  # noqa: E402

flags.quiet_tensorflow()

SMALL = ["--dataset", "digits", "--hidden_units", "32", "16", "--latent_dim", "4"]
SMALL += ["--limit", "240", "--batch", "20", "--log_every", "5"]


@pytest.fixture(scope="session")
def mnist_dir():
    """The folder with real MNIST; skips the test where there is none."""
    if not MNIST_DIR:
        pytest.skip("MNIST_DIR is not set: no real MNIST here")
    return MNIST_DIR


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished small run on digits: its weights folder. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("trained")
    assert train(folder, "--epoch", "2") == 0
    return folder / "weights"


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained folder, to be damaged."""
    return shutil.copytree(trained, tmp_path / "copy")


def train(folder, *argv):
    """Runs train.py's main in this process, on small digits, into `folder`; the exit code."""
    import train as script

    folders = ["--save_weight_dir", str(folder / "weights"), "--log_dir", str(folder / "log")]
    return script.main([*SMALL, *folders, *argv])


def run_script(*argv, cwd, **environment):
    """Runs a script of the project in a process of its own, as a user would."""
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, argv[0]), *map(str, argv[1:])],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def last_line(text):
    """The last line of what was printed."""
    return text.strip().splitlines()[-1]


def files_in(folder):
    """Every file below `folder` with its content, to see that nothing changed."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def weights_of(folder):
    """All weights of a folder as one list of arrays."""
    import weights

    return [weight.numpy() for weight in weights.load_vae(str(folder))[1].weights]


def points(folder):
    """Every scalar of an event folder as {tag: [(step, value), ...]}, by TensorBoard's loader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }
