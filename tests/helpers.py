"""What tests share besides fixtures: small runs, scripts as a user runs them, what is on disk."""

import contextlib
import dataclasses
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from support.storage import weights

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SMALL = ["--dataset", "digits", "--hidden_units", "32", "16", "16", "--latent_dim", "4"]
SMALL += ["--limit", "240", "--batch", "20", "--log_every", "5"]
STEPS = 240 // 20
# The TensorBoard tags by the names of terms, spelled out: a tag that moves to another group would
# break the users' links and layouts.
TAGS = {
    "loss_total": "-ELBO/loss_total",
    "loss_bce": "-ELBO/reconstruction/loss_bce",
    "loss_KLD": "-ELBO/regularizer/loss_KLD",
    "loss_l2": "others/loss_l2",
    "RMSE": "others/RMSE",
    "objective": "others/objective",
    "learning_rate": "others/learning_rate",
    "active_units": "others/active_units",
}
# An environment without an internet connection: the proxy refuses connections at once.
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


def folders(folder):
    """The flags that put a run's two folders below `folder`."""
    return ["--save_weight_dir", str(folder / "weights"), "--log_dir", str(folder / "log")]


def train(folder, *argv):
    """Runs train.py's main in this process, on digits, into `folder`; returns the exit code."""
    import train as script

    return script.main([*SMALL, *folders(folder), *argv])


def quietly(folder, *argv):
    """As `train`; returns the exit code and all that was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = train(folder, *argv)
    return code, printed.getvalue()


def lost_by_rerun(folder, whole, *argv):
    """Runs the command of the run `whole` again, on `folder`; returns what was lost, or ''."""
    code, printed = quietly(folder, *argv)
    if code:
        return f"the same command ended with {code}: {printed}"
    try:
        same_run(whole, folder)
    except AssertionError as error:
        return f"another run: {error}"
    return ""


# Processes that `start` has started; a fixture kills those that a failed test leaves running.
STARTED = []


def start(folder, *argv, **kwargs):
    """Starts train.py as a process on `folder`; it is killed at the end of the test."""
    command = [sys.executable, os.path.join(ROOT, "train.py"), *argv, *folders(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    STARTED.append(subprocess.Popen(command, **pipes, **kwargs))
    return STARTED[-1]


def wait_for(condition, process, seconds=300):
    """Waits until `condition()` holds while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_script(*argv, cwd, **environment):
    """Runs a script of the project in its own process, as a user would."""
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
    """Every file below `folder` with its content, to check that nothing has changed."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def arrays_of(where):
    """All weights of a folder, and its fitted prior if it has one, as one list of arrays."""
    found = weights.read(str(where))
    return [*found.encoder, *found.decoder, *(found.prior or ())]


def same_bits(one, other):
    """Asserts that two weights folders hold bit-identical weights."""
    for value, expected in zip(arrays_of(one), arrays_of(other), strict=True):
        np.testing.assert_array_equal(value, expected)


def points(folder):
    """Every scalar in an event folder as {name: [(step, value), ...]}, from TensorBoard's loader.

    Each must have its tag in `TAGS`, except those of the end of a run, `result/...`.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    results = {tag: tag for tag in tags if tag.startswith("result/")}
    curves = {tag.rpartition("/")[-1]: tag for tag in tags if tag not in results}
    assert curves == {name: TAGS[name] for name in curves}
    names = curves | results
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for name, tag in names.items()
    }


def same_run(one, other):
    """Asserts that two runs end with the same weights, the same record and the same curves."""
    same_bits(one / "weights", other / "weights")
    first, second = (weights.read_record(str(run / "weights")) for run in (one, other))
    assert first == dataclasses.replace(second, run_id=first.run_id)
    for part in ("train", "val"):
        assert points(one / "log" / part) == points(other / "log" / part)


def stop_after(steps, signum=signal.SIGTERM):
    """Returns a replacement of `CompiledSteps.__call__` that sends a signal after `steps` steps."""
    from support.training.steps import CompiledSteps

    call, done = CompiledSteps.__call__, [0]

    def counted(self, indices):
        terms = call(self, indices)
        done[0] += len(indices)
        if len(indices) and done[0] >= steps:
            os.kill(os.getpid(), signum)
        return terms

    return counted


@contextlib.contextmanager
def interrupted(steps, steps_per_call, signum=signal.SIGTERM):
    """Ends a run in this process by a signal after `steps` steps, `steps_per_call` in each call."""
    from support.training import steps as steps_module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps_module, "most_steps_per_call", lambda *_: steps_per_call)
        patch.setattr(steps_module.CompiledSteps, "__call__", stop_after(steps, signum))
        yield
