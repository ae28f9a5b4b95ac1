"""Measures how long it takes to reach a given quality, like MLPerf's training benchmark.

    pip install -r bench/requirements.txt                  # PyTorch and JAX; skipped if absent
    python -m bench.time_to_quality --data_dir ~/mnist --json quality.json      # two hours
    python -m bench.time_to_quality --seeds 1 --long_seeds 0                    # short runs, once
    python -m bench.time_to_quality --quick                                     # three minutes

One clock runs from the first training step until the -ELBO of the validation images first reaches a
threshold; a second one also includes start-up. Contenders take turns, seed by seed, each in a
process of its own:

- this repository as a user runs it (`python train.py --epoch N`, including validation, summaries
  and saves);
- two scripts that people copy, with their published settings: PyTorch's basic example, as it is and
  with its images in memory, and keras-io's with dense layers;
- the classic recipe (ReLU, Adam at a constant 2e-3, one sample of z) in Keras, PyTorch and JAX.

The clocks of other frameworks stop while their models are validated, after each epoch. Thresholds
are the -ELBO of PyTorch's example after its 10 epochs; of the classic recipe after --long_epochs,
in the fastest framework; and of train.py with its defaults. Since the learning rate of train.py is
scheduled over a whole run, its runs count only at their ends: for each threshold, the fastest one
that reaches it with every seed. Draws quality.png to --output_dir. With --quick, one epoch of
train.py is compared with PyTorch's example alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import charts, common, turns
from bench.turns import Entry
from support import cli, display, startup

CLASSIC = {"batch": 100, "activation": "relu", "learning_rate": 2e-3}
EXAMPLE, OURS = "PyTorch's example", "this repository"
BASELINES = {
    EXAMPLE: Entry("torch_example", {"batch": 128}),
    f"{EXAMPLE}, in memory": Entry("torch_example_in_memory", {"batch": 128}),
    "keras-io's settings, dense": Entry("keras_fit", {"batch": 128, "activation": "relu"}),
    "classic recipe, Keras fit": Entry("keras_fit", CLASSIC),
    "classic recipe, PyTorch": Entry("torch_eager", CLASSIC),
    "classic recipe, JAX": Entry("jax_scan", CLASSIC),
}
# The example's own number, and enough of the others' to see how they proceed.
BASELINE_EPOCHS = 10

# The times of one run, as written to --json: `start_up`, seconds before the first step; lists of
# `seconds` since then and validation `elbo` (-ELBO, nats), one item per epoch; and for our runs
# `command`, seconds from the start of the command until the weights are finished.
Run = dict[str, Any]


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.time_to_quality", __doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compare only `train.py --epoch 1` with PyTorch's example, once",
    )
    parser.add_argument("--seeds", type=cli.integer(1), default=5, help="runs of each contender")
    parser.add_argument(
        "--lengths",
        type=cli.integer(1),
        nargs="+",
        default=[1, 2, 3, 5, 10],
        metavar="N",
        help="values of --epoch for our short runs",
    )
    parser.add_argument(
        "--long_seeds",
        type=cli.integer(0),
        default=3,
        help="runs of the classic recipe over --long_epochs, and of train.py with its defaults",
    )
    parser.add_argument(
        "--long_epochs",
        type=cli.integer(1),
        default=100,
        help="epochs of long runs of the classic recipe",
    )
    common.add_data_flags(parser)
    common.add_result_flags(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Runs all contenders in turn, then finds which of them reached which threshold, and when."""
    common.prepare_results(args)
    # Otherwise TensorBoard's loader would import it, and it would print all its start-up lines.
    startup.import_tensorflow()
    baselines = list(BASELINES)
    if args.quick:
        args.seeds, args.lengths, args.long_seeds, baselines = 1, [1], 0, [EXAMPLE]
    runs: dict[str, list[Run]] = {}
    for seed in range(args.seeds):
        for length in args.lengths:
            keep(runs, ours_of(length), own_run(args, seed, ["--epoch", str(length)]), args)
        for name in baselines:
            keep(runs, name, baseline_run(args, seed, name, BASELINE_EPOCHS), args)
    classic = [name for name in runs if name.startswith("classic")]
    fastest = min(classic, key=lambda name: seconds_per_epoch(runs[name]), default="")
    for seed in range(args.long_seeds):
        long_run = baseline_run(args, seed, fastest, args.long_epochs)
        keep(runs, long_of(fastest, args), long_run, args)
        keep(runs, OURS, own_run(args, seed, []), args)
    found = {"runs": runs} | judged(runs, args, fastest)
    charts.quality(
        os.path.join(args.output_dir, "quality.png"),
        baselines=[median_curve(name, parts) for name, parts in runs.items() if OURS not in name],
        own=[median_curve(name, parts) for name, parts in runs.items() if OURS in name],
        thresholds=[charts.Threshold(*item) for item in found["thresholds"].items()],
    )
    common.write_json(args, found)


def keep(runs: dict[str, list[Run]], name: str, run: Run | None, args: argparse.Namespace) -> None:
    """Adds a run to the others, prints its end and writes all; None is a run that was skipped."""
    if run is None:
        return
    runs.setdefault(name, []).append(run)
    print(f"{name}: {run['elbo'][-1]:.2f} nats after {run['seconds'][-1]:.1f} s", flush=True)
    common.write_json(args, {"runs": runs})


def ours_of(length: int) -> str:
    """Returns the name of our run of this many epochs."""
    epochs = "epoch" if length == 1 else "epochs"
    return f"{OURS}, {length} {epochs}"


def long_of(name: str, args: argparse.Namespace) -> str:
    """Returns the name of a long run of the classic recipe."""
    return f"{name}, {args.long_epochs} epochs"


def seconds_per_epoch(parts: Iterable[Run]) -> float:
    """Returns the median over runs of the mean seconds per epoch."""
    return statistics.median(run["seconds"][-1] / len(run["seconds"]) for run in parts)


def own_run(args: argparse.Namespace, seed: int, flags: Sequence[str]) -> Run:
    """Runs train.py as a user does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tempfile.TemporaryDirectory() as work:
        folders = ["--save_weight_dir", f"{work}/weights", "--log_dir", f"{work}/log"]
        command = ["train.py", *flags, *folders, "--seed", str(seed), *common.data_flags(args)]
        seconds_in_all = common.run_script(command).seconds
        events = EventAccumulator(f"{work}/log/val").Reload()
        # The file is opened when everything is compiled, just before the first step.
        first = events.FirstEventTimestamp()
        points = events.Scalars(display.summaries.tag("loss_total"))
        ended = os.stat(f"{work}/weights/vae.keras").st_mtime
    return {
        "start_up": seconds_in_all - (ended - first),
        "seconds": [point.wall_time - first for point in points],
        "elbo": [point.value for point in points],
        "command": seconds_in_all,
    }


def baseline_run(args: argparse.Namespace, seed: int, name: str, epochs: int) -> Run | None:
    """Trains with another framework; returns None if it is not installed."""
    entry = BASELINES[name]
    with_seed = entry._replace(options={**entry.options, "seed": seed})
    contender = turns.start(with_seed, args, name)
    if contender is None:
        return None
    total, seconds, elbo = 0.0, [], []
    try:
        for _ in range(epochs):
            answer = contender.ask()
            total += answer["seconds"]
            seconds.append(total)
            elbo.append(answer["validation"])
    finally:
        contender.close()
    return {"start_up": contender.start_up_seconds, "seconds": seconds, "elbo": elbo}


def judged(
    runs: Mapping[str, Sequence[Run]], args: argparse.Namespace, fastest: str
) -> dict[str, Any]:
    """Finds which contender reached which threshold, and prints it.

    Args:
        runs: the runs of each contender, by name.
        args: this script's flags, with `long_seeds` and `long_epochs`.
        fastest: the contender whose long runs give a threshold; empty: there are none.

    Returns:
        `thresholds`, -ELBO by label; and `reached`, for each label and contender the median seconds
        of `training` with their `range`, and those of the whole `command`, including start-up.
    """
    thresholds = thresholds_of(runs, args, fastest)
    reached = {}
    for label, threshold in thresholds.items():
        common.heading(f"{threshold:.2f} nats, validation: {label}")
        reached[label] = times_to(runs, threshold)
        print_times(reached[label])
    return {"thresholds": thresholds, "reached": reached}


def thresholds_of(
    runs: Mapping[str, Sequence[Run]], args: argparse.Namespace, fastest: str
) -> dict[str, float]:
    """Returns the -ELBO of each threshold: the mean over the ends of the runs that set it."""
    set_by = {f"{EXAMPLE} after {BASELINE_EPOCHS} epochs": EXAMPLE}
    if args.long_seeds and fastest:
        set_by[f"the classic recipe after {args.long_epochs} epochs"] = long_of(fastest, args)
        set_by["train.py with its defaults"] = OURS
    return {
        label: statistics.mean(run["elbo"][-1] for run in runs[name])
        for label, name in set_by.items()
        if name in runs
    }


def times_to(runs: Mapping[str, Sequence[Run]], threshold: float) -> dict[str, dict[str, Any]]:
    """Returns the times of the contenders that reach a threshold with every seed."""
    found = {}
    for name, parts in runs.items():
        times = [crossing(run, threshold) for run in parts]
        reached = [time for time in times if time is not None]
        if len(reached) < len(times):
            continue
        training = [seconds for seconds, _ in reached]
        found[name] = {
            "training": statistics.median(training),
            "range": [min(training), max(training)],
            "command": statistics.median(seconds for _, seconds in reached),
        }
    return found


def crossing(run: Run, threshold: float) -> tuple[float, float] | None:
    """Returns the seconds after which a run reached a threshold; None if it did not.

    Our runs count only at their ends, including finished weights.

    Returns:
        Seconds of training, and seconds including start-up.
    """
    if "command" in run:
        done = run["elbo"][-1] <= threshold
        return (run["seconds"][-1], run["command"]) if done else None
    for seconds, elbo in zip(run["seconds"], run["elbo"], strict=True):
        if elbo <= threshold:
            return seconds, run["start_up"] + seconds
    return None


def print_times(times: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the times to one threshold, and how many times as fast ours is."""
    print(f"{'':<44}{'training, s':>12}{'(range)':>18}{'with start-up, s':>21}")
    for name, row in times.items():
        low, high = row["range"]
        print(
            f"{name:<44}{row['training']:>12.1f}{f'({low:.1f} to {high:.1f})':>18}"
            f"{row['command']:>21.1f}"
        )
    own = [name for name in times if OURS in name]
    if not own:
        return
    best = min(own, key=lambda name: times[name]["training"])
    for name in times:
        if name not in own:
            in_training, in_all = (
                times[name][clock] / times[best][clock] for clock in ("training", "command")
            )
            print(
                f"{best}: {in_training:.1f} times as fast as {name} "
                f"({in_all:.1f} times including start-up)"
            )


def median_curve(name: str, parts: Sequence[Run]) -> charts.Curve:
    """Returns the -ELBO over the seconds at the end of each epoch, as medians over runs."""
    seconds, elbo = (
        [statistics.median(values) for values in zip(*(run[key] for run in parts), strict=True)]
        for key in ("seconds", "elbo")
    )
    return charts.Curve(name, seconds, elbo)


if __name__ == "__main__":
    sys.exit(main())
