"""Measures training speed against the machine's limit and other frameworks, and start-up times.

    pip install -r bench/requirements.txt                  # PyTorch and JAX; skipped if absent
    python -m bench.run --data_dir ~/mnist                 # half an hour on two idle cores
    python -m bench.run --quick --json speed.json          # the main results in under ten minutes

Contenders take turns (A B C A B C), each in a process of its own. Results are medians, shown with
the smallest and the largest value. The limit is the fastest float32 product of two 2048x2048
matrices among NumPy, TensorFlow and JAX on all cores; the lower bound for an epoch is the time of
its multiplications and additions at that speed, counted from the sizes of the layers. Draws
speed.png to --output_dir. Run nothing else on the machine, or the results are wrong.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pty
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from bench import charts, common, matmul, turns
from bench.turns import Entry, Turn
from support import cli
from support.datasets.types import PIXELS
from support.errors import UserError

# The network that all implementations train; none of its layers can be residual.
IMAGES, BATCH, HIDDEN_UNITS, LATENT_DIM = 55_000, 100, (512, 256), 128
NETWORK = "-".join(map(str, HIDDEN_UNITS))
NETWORK_FLAGS = ("--hidden_units", *map(str, HIDDEN_UNITS))
BATCHES, QUICK_BATCHES, LARGE_BATCH = (BATCH, 256, 1024), (BATCH, 1024), 1024
BASELINES = ("keras_fit", "keras_fit_compiled", "torch_eager", "torch_compile", "jax_scan")
MATMULS = ("matmul_numpy", "matmul_tensorflow", "matmul_jax")
NAMES = {
    "ours": "this repository",
    "keras_fit": "Keras fit",
    "keras_fit_compiled": "Keras fit, XLA, 50 steps per call",
    "torch_eager": "PyTorch, fused Adam",
    "torch_compile": "PyTorch, torch.compile",
    "jax_scan": "JAX, lax.scan over the epoch",
}
# Share by which losses of a second epoch may differ: between four seeds they do by up to 2.6 %.
SAME_LOSS = 0.03
GENERATED = (100_000, 1_000_000)
QUICK_TURNS = 5
# Images in the epoch to which larger ones are compared.
SMALL_EPOCH = 11_000


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.run", __doc__)
    parser.add_argument("--repeat", type=cli.integer(3), default=9, help="turns of each contender")
    parser.add_argument(
        "--quick", action="store_true", help="the main results only, at most five turns each"
    )
    common.add_data_flags(parser)
    common.add_result_flags(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Limit, training, a run as a user sees it, and the rest; then chart and JSON."""
    if args.quick:
        args.repeat = min(args.repeat, QUICK_TURNS)
    common.prepare_results(args)
    figures: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "repeat": args.repeat}
    figures["matmul_flops"] = measure_matmuls(args)
    limit = figures["limit_flops"] = max(figures["matmul_flops"].values())
    figures["training"] = measure_training(args, limit)
    figures |= headline(figures["training"])
    figures |= measure_as_run(args)
    if not args.quick:
        figures["start_up_seconds"] = measure_start_up(args)
        figures["generation"] = measure_generation(limit)
        figures["growth"] = measure_growth(args)
    draw(os.path.join(args.output_dir, "speed.png"), figures)
    common.write_json(args, figures)


def flops_of_training(hidden_units: Sequence[int] = HIDDEN_UNITS, samples: int = 1) -> int:
    """Returns the multiplications and additions of a training step for one image.

    Only matrix products are counted. Each layer takes three products of 2 * inputs * outputs:
    forward, the gradient of its weights, and that of its inputs, which the first layer of the
    encoder does not need.

    Args:
        hidden_units: widths of the encoder's hidden layers.
        samples: samples of z for each image.
    """
    widths = [PIXELS, *hidden_units, 2 * LATENT_DIM]
    encoder = 3 * _flops_forward(widths) - _flops_forward(widths[:2])
    return encoder + 3 * samples * flops_of_decoding(hidden_units)


def flops_of_decoding(hidden_units: Sequence[int] = HIDDEN_UNITS) -> int:
    """Returns the multiplications and additions to decode one z."""
    return _flops_forward([LATENT_DIM, *reversed(hidden_units), PIXELS])


def _flops_forward(widths: Sequence[int]) -> int:
    return 2 * sum(inputs * outputs for inputs, outputs in itertools.pairwise(widths))


def measure_matmuls(args: argparse.Namespace) -> dict[str, float]:
    """Returns the FLOP/s of the matrix product of each library, by name."""
    timed = turns.take_turns({name: Entry(name) for name in MATMULS}, args)
    flops = 2 * matmul.SIDE**3 * matmul.COUNT
    speeds = {name: flops / times.median for name, times in timed.items()}
    common.heading(f"The limit: float32 product of {matmul.SIDE}x{matmul.SIDE} matrices")
    for name, speed in speeds.items():
        print(f"{name.removeprefix('matmul_'):<34}{speed / 1e9:>9.1f} GFLOP/s")
    return speeds


def measure_training(args: argparse.Namespace, limit: float) -> dict[str, dict[str, Any]]:
    """Measures an epoch of each contender at several batch sizes.

    Args:
        args: this script's flags.
        limit: the machine's limit, in FLOP/s.

    Returns:
        The results by batch size and contender.
    """
    found = {}
    for batch in QUICK_BATCHES if args.quick else BATCHES:
        names = ["ours"]
        if not args.quick or batch == BATCH:
            names += BASELINES
        entry_options = {"batch": batch, "images": IMAGES}
        timed = turns.take_turns({name: Entry(name, entry_options) for name in names}, args)
        images = IMAGES // batch * batch
        least_seconds = images * flops_of_training() / limit
        rows = {
            name: {
                "median_seconds": times.median,
                "seconds": times.seconds,
                "images_per_second": images / times.median,
                "share_of_limit": least_seconds / times.median,
                "loss_after_two_epochs": times.loss,
            }
            for name, times in timed.items()
        }
        common.heading(f"An epoch of {images:,} images, batch {batch}; limit {least_seconds:.2f} s")
        print_training(rows)
        require_same_loss(rows, batch)
        found[str(batch)] = rows
    return found


def print_training(rows: dict[str, dict[str, Any]]) -> None:
    """Prints the table of one batch size."""
    print(f"{'':<34}{'seconds':>9}{'(range)':>15}{'images/s':>10}{'of limit':>10}{'loss':>9}")
    for name, row in rows.items():
        print(
            f"{NAMES[name]:<34}{row['median_seconds']:>9.2f}"
            f"{turns.seconds_range(row['seconds']):>15}"
            f"{row['images_per_second']:>10,.0f}{100 * row['share_of_limit']:>9.0f}%"
            f"{row['loss_after_two_epochs']:>9.2f}"
        )


def require_same_loss(rows: dict[str, dict[str, Any]], batch: int) -> None:
    """Raises a `UserError` if the contenders' losses show that their models differ."""
    losses = [row["loss_after_two_epochs"] for row in rows.values()]
    if max(losses) > (1 + SAME_LOSS) * min(losses):
        raise UserError(
            f"batch {batch}: expected losses within {100 * SAME_LOSS:.0f} % of each other, got "
            f"{min(losses):.2f} to {max(losses):.2f}: make the contenders train the same model"
        )


def headline(training: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Prints and returns how this repository compares with the other frameworks."""
    rows = training[str(BATCH)]
    ours = rows["ours"]["median_seconds"]
    seconds = {name: row["median_seconds"] for name, row in rows.items() if name != "ours"}
    fastest = min(seconds, key=lambda name: seconds[name])
    ratio, ratio_to_fit = seconds[fastest] / ours, seconds["keras_fit"] / ours
    print(
        f"ours: {ratio:.2f} times as fast as the fastest other ({NAMES[fastest]}), "
        f"{ratio_to_fit:.2f} times as fast as Keras fit"
    )
    return {
        "fastest_baseline": fastest,
        "ratio_to_fastest_baseline": ratio,
        "ratio_to_keras_fit": ratio_to_fit,
        "share_of_limit": rows["ours"]["share_of_limit"],
        "share_of_limit_batch_1024": training[str(LARGE_BATCH)]["ours"]["share_of_limit"],
    }


def measure_as_run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures train.py itself on a terminal, compared with the bare loop of the same recipe."""
    with tempfile.TemporaryDirectory() as work, UserRun(work, args) as as_run:
        timed = turns.take_turns(
            {"bare": Entry("ours_default"), "validation": Entry("validation")},
            args,
            others={"as_run": as_run},
        )
    seconds = {label: times.median for label, times in timed.items()}
    overhead = (seconds["as_run"] - seconds["validation"]) / seconds["bare"] - 1
    common.heading(f"train.py ({NETWORK}), as a user runs it: terminal, TensorBoard, saves")
    print(f"{'bare loop, one epoch':<34}{seconds['bare']:>9.2f} s")
    print(f"{'train.py, epoch to epoch':<34}{seconds['as_run']:>9.2f} s")
    print(f"{'of which validation':<34}{seconds['validation']:>9.2f} s")
    print(f"overhead without validation: {100 * overhead:.1f} %")
    return {"as_run_seconds": seconds, "overhead_as_run": overhead}


class UserRun:
    """train.py on a terminal of its own, stopped between its turns; a turn is one epoch.

    Args:
        work: a folder for its weights and event files.
        args: this script's flags, with the data flags.
    """

    # More than the turns of any benchmark.
    EPOCHS = "1000"

    def __init__(self, work: str, args: argparse.Namespace) -> None:
        self._terminal, other_end = pty.openpty()
        command = [sys.executable, os.path.join(common.ROOT, "train.py"), *common.data_flags(args)]
        command += ["--save_weight_dir", f"{work}/weights", "--log_dir", f"{work}/log"]
        command += ["--epoch", self.EPOCHS, *NETWORK_FLAGS]
        self._process = subprocess.Popen(command, stdout=other_end, stderr=other_end, cwd=work)
        os.close(other_end)
        self._unread = b""
        self._read_to_end_of_epoch()

    def __enter__(self) -> UserRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def turn(self) -> Turn:
        """Lets it run to the end of an epoch."""
        started = time.perf_counter()
        self._process.send_signal(signal.SIGCONT)
        self._read_to_end_of_epoch()
        return Turn(time.perf_counter() - started, None)

    def _read_to_end_of_epoch(self) -> None:
        """Reads the terminal up to the line that ends an epoch, and stops the process there."""
        while not (line := re.search(rb"validation; .*images/s\r?\n", self._unread)):
            try:
                self._unread += os.read(self._terminal, 65536)
            except OSError:
                # Reading a terminal whose other end is closed is an error, not the end of the file.
                printed = self._unread.decode(errors="replace").strip().splitlines()
                reason = printed[-1] if printed else "no output"
                raise UserError(f"train.py failed: {reason}") from None
        self._process.send_signal(signal.SIGSTOP)
        self._unread = self._unread[line.end() :]


def measure_start_up(args: argparse.Namespace) -> dict[str, float]:
    """Measures the time that short commands take, including start-up, in turn."""
    common.heading("Short commands, including start-up")
    with tempfile.TemporaryDirectory() as work:
        folders = ["--save_weight_dir", f"{work}/weights", "--log_dir", f"{work}/log"]
        data_flags = common.data_flags(args)
        short_run = ["--limit", "1000", "--epoch", "1", "--overwrite"]
        commands = {
            "import tensorflow": ["-c", "import tensorflow"],
            "train.py --help": ["train.py", "--help"],
            "eval.py": ["eval.py", "--output_dir", work, *data_flags],
            "eval_genresult.py": ["eval_genresult.py", "--output_dir", work],
            "train.py, 20 steps": ["train.py", *short_run, *folders, *data_flags],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(args.repeat):
            for name, command in commands.items():
                taken[name].append(common.run_script(command).seconds)
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    for name, value in seconds.items():
        ratio = value / seconds["import tensorflow"]
        print(f"{name:<34}{value:>9.2f} s, {ratio:.2f} times the import")
    return seconds


def measure_generation(limit: float) -> dict[str, float]:
    """Measures digits per second in bulk, compared with the decoder's arithmetic, and memory.

    Args:
        limit: the machine's limit, in FLOP/s.
    """
    common.heading(f"Generation: eval_genresult.py ({NETWORK}), z from N(0, I)")
    runs: dict[int, list[common.ScriptRun]] = {count: [] for count in GENERATED}
    with tempfile.TemporaryDirectory() as work:
        # The speed does not depend on the weights.
        folder = f"{work}/weights"
        training = ["--dataset", "digits", "--limit", "100", "--epoch", "1", *NETWORK_FLAGS]
        training += ["--save_weight_dir", folder, "--log_dir", f"{work}/log"]
        common.run_script(["train.py", *training])
        command = ["eval_genresult.py", "--output_dir", work, "--load_weight_dir", folder]
        command += ["--prior", "standard", "--num"]
        for _ in range(3):
            for count in GENERATED:
                runs[count].append(common.run_script([*command, str(count)]))
    few, many = GENERATED
    seconds, peak = (
        {
            count: statistics.median(getattr(run, field) for run in of_count)
            for count, of_count in runs.items()
        }
        for field in ("seconds", "peak_bytes")
    )
    speed = (many - few) / (seconds[many] - seconds[few])
    share = speed * flops_of_decoding() / limit
    print(
        f"{speed:,.0f} digits/s between {few:,} and {many:,}, {100 * share:.0f} % of the limit of "
        f"the decoder's matrix products; peak memory {peak[few] / 2**20:,.0f} and "
        f"{peak[many] / 2**20:,.0f} MiB"
    )
    return {"digits_per_second": speed, "share_of_limit": share, "peak_bytes": peak[many]}


def measure_growth(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measures how the cost of an epoch grows, compared with what the FLOPs predict."""
    small = {"images": SMALL_EPOCH}
    grown: dict[str, dict[str, Any]] = {
        f"{SMALL_EPOCH:,} images, one sample of z": small,
        "2 times the images": {"images": 2 * SMALL_EPOCH},
        "4 times the images": {"images": 4 * SMALL_EPOCH},
        "2 times the widths": small | {"hidden_units": tuple(2 * width for width in HIDDEN_UNITS)},
        "4 times the widths": small | {"hidden_units": tuple(4 * width for width in HIDDEN_UNITS)},
        "2 samples of z": small | {"samples": 2},
        "5 samples of z": small | {"samples": 5},
        "10 samples of z": small | {"samples": 10},
    }
    timed = turns.take_turns(
        {name: Entry("ours", options) for name, options in grown.items()}, args
    )
    smallest = next(iter(timed.values())).median
    common.heading("How the cost of an epoch grows, and what the FLOPs predict")
    found = {}
    for name, options in grown.items():
        samples = options.get("samples", 1)
        flops = flops_of_training(options.get("hidden_units", HIDDEN_UNITS), samples)
        predicted = options["images"] * flops / (SMALL_EPOCH * flops_of_training())
        seconds = timed[name].median
        measured = seconds / smallest
        found[name] = {"measured": measured, "predicted": predicted}
        print(f"{name:<34}{seconds:>9.2f} s{measured:>8.2f}x, predicted {predicted:.2f}x")
    return found


def draw(path: str, figures: dict[str, Any]) -> None:
    """Draws the images per second of every contender, and the limit."""
    rows = figures["training"][str(BATCH)]
    names = sorted(rows, key=lambda name: -rows[name]["images_per_second"])
    bars = [
        charts.Bar(
            NAMES[name],
            rows[name]["images_per_second"],
            IMAGES / max(rows[name]["seconds"]),
            IMAGES / min(rows[name]["seconds"]),
        )
        for name in names
    ]
    charts.ranking(
        path,
        bars,
        charts.Threshold(
            "the machine's matmul limit", figures["limit_flops"] / flops_of_training()
        ),
        title=f"Training, batch {BATCH}, float32, {figures['cores']} cores",
        x_label="images per second: median, and range of the turns",
    )


if __name__ == "__main__":
    sys.exit(main())
