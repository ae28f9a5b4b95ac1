"""What the benches share: flags, data, train.py's own compiled steps, scripts run as a user does.

The timing of things in turn is in bench/turns.py, the charts are in bench/charts.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import data
import train
from support import cli, files, training
from support.datasets.types import PIXELS, Dataset, Split
from support.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ADVICE = "pip install -r bench/requirements.txt"
# Flags of train.py for plain training: one sample of z, undistorted images, Adam at a constant
# learning rate, the full KL term from the first step on.
PLAIN_TRAINING = (
    *("--elbo_samples", "1"),
    *("--elastic", "0"),
    *("--schedule", "constant"),
    *("--warmup_epochs", "0"),
    *("--kl_warmup_epochs", "0"),
    *("--beta_2", "0.999"),
    *("--weight_decay", "0"),
)


def add_data_flags(parser: cli.Parser) -> None:
    """Adds `--dataset` and `--data_dir`, as train.py has them."""
    cli.add_data_flags(parser, "MNIST where it is available, otherwise scikit-learn's small digits")


def add_result_flags(parser: cli.Parser) -> None:
    """Adds `--json` and `--output_dir`: where figures and charts go."""
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures to FILE, too")
    cli.add_output_flag(parser)


def prepare_results(args: argparse.Namespace) -> None:
    """Creates the folders for figures and charts; a `UserError` where they cannot be written."""
    files.writable_folder(args.output_dir)
    if args.json:
        files.writable_folder(os.path.dirname(os.path.abspath(args.json)))


def write_json(args: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Writes figures to the file that `--json` names, if it names one."""
    if args.json:
        files.write_json(args.json, figures)


def heading(text: str) -> None:
    """Prints the title of a table."""
    print(f"\n{text}", flush=True)


def load_data(args: argparse.Namespace) -> Dataset:
    """Loads the data set that the flags name."""
    return data.load(args.dataset, cli.data_dir(args, args.dataset))


def data_flags(args: argparse.Namespace) -> list[str]:
    """Returns this script's data flags, for another script that it starts."""
    flags = ["--dataset", args.dataset]
    if args.data_dir:
        flags += ["--data_dir", args.data_dir]
    return flags


def random_images(count: int, seed: int) -> NDArray[np.uint8]:
    """Returns noise in place of a data set, where only the time counts: uint8 (count, 784)."""
    return np.random.default_rng(seed).integers(0, 256, (count, PIXELS), np.uint8)


class OwnSteps(NamedTuple):
    """train.py's own training steps.

    Attributes:
        run: runs several steps, as `training.steps.CompiledSteps` does.
        steps_per_call: the most that one call takes.
    """

    run: training.steps.CompiledSteps
    steps_per_call: int


def compile_own_steps(
    images: NDArray[np.uint8],
    flags: Sequence[str],
    workers: training.workers.Workers | None = None,
    steps_per_call: int | None = None,
) -> OwnSteps:
    """Builds model and optimizer and compiles the training step, as `train.train` does.

    Args:
        images: uint8 (n, 784), all training images.
        flags: of train.py.
        workers: the devices and machines that share each batch; None: one device.
        steps_per_call: the most steps of a call; None: as many as train.py runs.
    """
    part = Split(images, None)
    config = train.resolve(train.parser().parse_args(flags), Dataset("bench", "", part, part, part))
    workers = workers or training.workers.Workers()
    vae, optimizer, learning_rate = train.build(config, workers)
    step = train.TrainingStep(config, images, vae, optimizer, learning_rate)
    size = steps_per_call or training.steps.most_steps_per_call(
        vae, config.batch_size, config.elbo_samples
    )
    names = training.run.TERM_NAMES
    run = training.steps.compile_steps(step, names, workers, size, config.batch_size)
    return OwnSteps(run, size)


class ScriptRun(NamedTuple):
    """What a script took.

    Attributes:
        seconds: wall time.
        peak_bytes: the most resident memory.
    """

    seconds: float
    peak_bytes: int


def run_script(command: Sequence[str]) -> ScriptRun:
    """Runs a Python script of this repository to its end.

    Args:
        command: the arguments of `python`, in the folder of this repository.

    Raises:
        UserError: it failed.
    """
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=printed, stderr=printed
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            printed.seek(0)
            lines = printed.read().strip().splitlines()
            reason = lines[-1] if lines else f"status {status}"
            raise UserError(f"{' '.join(command[:2])} failed: {reason}")
    return ScriptRun(seconds, 1024 * usage.ru_maxrss)
