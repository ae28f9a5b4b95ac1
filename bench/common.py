"""What the benchmarks share: flags, data, compiled steps of train.py, scripts run as a user does.

Timing in turn is in bench/turns.py, charts are in bench/charts.py.
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
# Flags of train.py for plain training: one sample of z, undistorted images, Adam with a constant
# learning rate, the full KL term from the first step on, and no residual layers.
PLAIN_TRAINING = (
    *("--elbo_samples", "1"),
    *("--elastic", "0"),
    *("--schedule", "constant"),
    *("--warmup_epochs", "0"),
    *("--kl_warmup_epochs", "0"),
    *("--beta_2", "0.999"),
    *("--weight_decay", "0"),
    "--no-residual",
)


def add_data_flags(parser: cli.Parser) -> None:
    """Adds `--dataset` and `--data_dir`, as train.py has them."""
    cli.add_data_flags(parser, "MNIST if it is available, otherwise scikit-learn's small digits")


def add_result_flags(parser: cli.Parser) -> None:
    """Adds `--json` and `--output_dir`: where results and charts go."""
    parser.add_argument("--json", default="", metavar="FILE", help="also write the results to FILE")
    cli.add_output_flag(parser)


def prepare_results(args: argparse.Namespace) -> None:
    """Creates the folders for results and charts.

    Raises:
        UserError: they cannot be written.
    """
    files.writable_folder(args.output_dir)
    if args.json:
        files.writable_folder(os.path.dirname(os.path.abspath(args.json)))


def write_json(args: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Writes results to the file given by `--json`, if it is given."""
    if args.json:
        files.write_json(args.json, figures)


def heading(text: str) -> None:
    """Prints the title of a table."""
    print(f"\n{text}", flush=True)


def load_data(args: argparse.Namespace) -> Dataset:
    """Loads the data set that the flags select."""
    return data.load(args.dataset, cli.data_dir(args, args.dataset))


def data_flags(args: argparse.Namespace) -> list[str]:
    """Returns this script's data flags, for another script that it starts."""
    flags = ["--dataset", args.dataset]
    if args.data_dir:
        flags += ["--data_dir", args.data_dir]
    return flags


def random_images(count: int, seed: int) -> NDArray[np.uint8]:
    """Returns noise, uint8 (count, 784), for measurements in which only the time matters."""
    return np.random.default_rng(seed).integers(0, 256, (count, PIXELS), np.uint8)


class OwnSteps(NamedTuple):
    """train.py's own training steps.

    Attributes:
        run: runs several steps, as `training.steps.CompiledSteps` does.
        steps_per_call: the largest number of steps in one call.
    """

    run: training.steps.CompiledSteps
    steps_per_call: int


def compile_own_steps(
    images: NDArray[np.uint8],
    flags: Sequence[str],
    workers: training.workers.Workers | None = None,
    steps_per_call: int | None = None,
) -> OwnSteps:
    """Builds the model and the optimizer and compiles the training step, as `train.train` does.

    Args:
        images: uint8 (n, 784), all training images.
        flags: flags of train.py.
        workers: the devices and machines that share each batch; None: one device.
        steps_per_call: the largest number of steps in one call; None: as many as in train.py.
    """
    part = Split(images, None)
    config = train.resolve(train.parser().parse_args(flags), Dataset("bench", "", part, part, part))
    workers = workers or training.workers.Workers()
    vae, optimizer, learning_rate = train.build(config, images, workers)
    step = train.TrainingStep(config, images, vae, optimizer, learning_rate)
    size = steps_per_call or training.steps.most_steps_per_call(
        vae, config.batch_size, config.elbo_samples
    )
    names = training.run.TERM_NAMES
    run = training.steps.compile_steps(step, names, workers, size, config.batch_size)
    return OwnSteps(run, size)


class ScriptRun(NamedTuple):
    """The time and memory that a script took.

    Attributes:
        seconds: wall time.
        peak_bytes: peak resident memory.
    """

    seconds: float
    peak_bytes: int


def run_script(command: Sequence[str]) -> ScriptRun:
    """Runs a Python script of this repository to its end.

    Args:
        command: the arguments of `python`, which runs in the folder of this repository.

    Raises:
        UserError: the script failed.
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
