"""Measures how long a given quality takes, in the manner of MLPerf's training benchmark.

    pip install -r bench/requirements.txt                  # PyTorch and JAX; skipped where absent
    python -m bench.time_to_quality --data_dir ~/mnist --json quality.json      # two hours
    python -m bench.time_to_quality --seeds 1 --long_seeds 0                    # short runs, once

The clock runs from the first training step until the -ELBO of the validation images first reaches a
threshold; beside it, from the command on. Contenders take turns, seed by seed, each in a process of
its own: this repository as a user runs it (`python train.py --epoch N`, its validation, curves and
saves included); the two scripts that people copy, by their published settings: PyTorch's basic
example, as it is and with its images in memory, and keras-io's with dense layers; and the classic
recipe (ReLU, Adam at a constant 2e-3, one z) in Keras, PyTorch and JAX. The clock of a peer stands
still while it is validated, after each epoch. Thresholds: what PyTorch's example reaches after its
10 epochs; the classic recipe after --long_epochs, in the fastest peer; the default of train.py. A
schedule ends with its run, so for each threshold the quickest run of ours counts that reaches it
with every seed. Draws quality.png to --output_dir.
"""

import os
import statistics
import sys
import tempfile

from bench import charts
from bench.run import Contender, child, data_flags, heading
from support import cli, curves, files

CLASSIC = {"batch": 100, "activation": "relu", "learning_rate": 2e-3}
# Name -> (contender of contenders.py, its options).
PEERS = {
    "PyTorch's example": ("torch_example", {"batch": 128}),
    "PyTorch's example, in memory": ("torch_example_in_memory", {"batch": 128}),
    "keras-io's settings, dense": ("keras_fit", {"batch": 128, "activation": "relu"}),
    "classic recipe, Keras fit": ("keras_fit", CLASSIC),
    "classic recipe, PyTorch": ("torch_eager", CLASSIC),
    "classic recipe, JAX": ("jax_scan", CLASSIC),
}
EXAMPLE, OURS = "PyTorch's example", "this repository"
# The example's own, and enough of the others' to see where they go.
PEER_EPOCHS = 10


def parser():
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.time_to_quality", __doc__)
    add, count = parser.add_argument, cli.integer(1)
    add("--seeds", type=count, default=5, help="runs of each contender")
    lengths = "--epoch of our short runs"
    add("--lengths", type=count, nargs="+", default=[1, 2, 3, 5, 10], metavar="N", help=lengths)
    long_seeds = "runs of the classic recipe over --long_epochs, and of train.py with its defaults"
    add("--long_seeds", type=cli.integer(0), default=3, help=long_seeds)
    add("--long_epochs", type=count, default=100, help="of the classic recipe")
    cli.add_data_flags(parser, "MNIST where it can be had, otherwise the embedded digits")
    add("--json", default="", help="file for every run and figure")
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args):
    """Runs everybody in turn, then finds who reached what, and when."""
    files.writable_folder(args.output_dir)
    if args.json:
        files.writable_folder(os.path.dirname(os.path.abspath(args.json)))
    # What reads the curves would bring it in with all its lines.
    cli.quiet_tensorflow()
    runs = {}

    def keep(name, run):
        runs.setdefault(name, []).append(run)
        print(f"{name}: {run['elbo'][-1]:.2f} nats after {run['seconds'][-1]:.1f} s", flush=True)
        if args.json:
            files.write_json(args.json, {"runs": runs})

    for seed in range(args.seeds):
        for length in args.lengths:
            keep(ours_of(length), own_run(args, seed, ["--epoch", str(length)]))
        for name in PEERS:
            run = peer_run(args, seed, name, PEER_EPOCHS)
            if run:
                keep(name, run)
    fastest = min((n for n in runs if n.startswith("classic")), key=lambda n: pace(runs[n]))
    for seed in range(args.long_seeds):
        keep(long_of(fastest, args), peer_run(args, seed, fastest, args.long_epochs))
        keep(OURS, own_run(args, seed, []))
    found = {"runs": runs} | judged(runs, args, fastest)
    charts.quality(
        os.path.join(args.output_dir, "quality.png"),
        {name: median_curve(parts) for name, parts in runs.items() if OURS not in name},
        {name: median_curve(parts) for name, parts in runs.items() if OURS in name},
        found["thresholds"],
    )
    if args.json:
        files.write_json(args.json, found)


def ours_of(length):
    """The name of our run of so many epochs."""
    return f"{OURS}, {length} epoch{'s' * (length > 1)}"


def long_of(name, args):
    """The name of a peer's long run."""
    return f"{name}, {args.long_epochs} epochs"


def pace(parts):
    """Median seconds of an epoch."""
    return statistics.median(run["seconds"][-1] / len(run["seconds"]) for run in parts)


def own_run(args, seed, flags):
    """Runs train.py as a user does.

    Returns:
        dict of `start_up`, seconds before the first step; lists of `seconds` since then and
        validation `elbo`, an item an epoch; and `command`, seconds until the weights are finished.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tempfile.TemporaryDirectory() as work:
        folders = ["--save_weight_dir", f"{work}/weights", "--log_dir", f"{work}/log"]
        argv = ["train.py", *flags, *folders, "--seed", str(seed), *data_flags(args)]
        command = child(argv)[0]
        events = EventAccumulator(f"{work}/log/val").Reload()
        # The file is opened when everything is compiled, and the first step follows.
        first = events.FirstEventTimestamp()
        points = events.Scalars(curves.tag("loss_total"))
        ended = os.stat(f"{work}/weights/vae.keras").st_mtime
    seconds = [point.wall_time - first for point in points]
    start_up = command - (ended - first)
    elbo = [point.value for point in points]
    return {"start_up": start_up, "seconds": seconds, "elbo": elbo, "command": command}


def peer_run(args, seed, name, epochs):
    """Lets a peer train; returns the same without `command`, or None where it is not installed."""
    contender, options = PEERS[name]
    try:
        peer = Contender(contender, args, **options, seed=seed)
    except ModuleNotFoundError as error:
        print(f"skipped {name}: {error}; pip install -r bench/requirements.txt")
        return None
    total, seconds, elbo = 0.0, [], []
    try:
        for _ in range(epochs):
            answer = peer.ask()
            total += answer["seconds"]
            seconds.append(total)
            elbo.append(answer["validation"])
    finally:
        peer.close()
    return {"start_up": peer.start_up, "seconds": seconds, "elbo": elbo}


def judged(runs, args, fastest):
    """Finds who reached which threshold, and prints it; returns both as dicts."""
    ends = {"PyTorch's example after 10 epochs": EXAMPLE}
    if args.long_seeds:
        ends |= {
            f"the classic recipe after {args.long_epochs} epochs": long_of(fastest, args),
            "train.py with its defaults": OURS,
        }
    thresholds = {
        label: statistics.mean(run["elbo"][-1] for run in runs[name])
        for label, name in ends.items()
        if name in runs
    }
    reached = {}
    for label, threshold in thresholds.items():
        heading(f"{threshold:.2f} nats, validation: {label}")
        print(f"{'':<44}{'training, s':>12}{'(range)':>18}{'from the command, s':>21}")
        reached[label] = found = {}
        for name, parts in runs.items():
            times = [crossing(run, threshold) for run in parts]
            if None not in times:
                found[name] = {
                    "training": statistics.median(time[0] for time in times),
                    "range": [edge(time[0] for time in times) for edge in (min, max)],
                    "command": statistics.median(time[1] for time in times),
                }
                low, high = found[name]["range"]
                print(
                    f"{name:<44}{found[name]['training']:>12.1f}{f'({low:.1f} to {high:.1f})':>18}"
                    f"{found[name]['command']:>21.1f}"
                )
        own = [name for name in found if OURS in name]
        if own:
            best = min(own, key=lambda name: found[name]["training"])
            for name in [name for name in found if name not in own]:
                sooner, in_all = (
                    found[name][clock] / found[best][clock] for clock in ("training", "command")
                )
                print(f"{best}: {sooner:.1f} and {in_all:.1f} times sooner than {name}")
    return {"thresholds": thresholds, "reached": reached}


def crossing(run, threshold):
    """Returns the seconds after which a run reached a threshold, of training and from the command;
    None where it did not. A run of ours counts at its end, and with its finished weights."""
    if "command" in run:
        done = run["elbo"][-1] <= threshold
        return (run["seconds"][-1], run["command"]) if done else None
    for seconds, elbo in zip(run["seconds"], run["elbo"], strict=True):
        if elbo <= threshold:
            return seconds, run["start_up"] + seconds
    return None


def median_curve(parts):
    """Returns seconds and -ELBO of an epoch's end, medians over runs."""
    return tuple(
        [statistics.median(values) for values in zip(*(run[key] for run in parts), strict=True)]
        for key in ("seconds", "elbo")
    )


if __name__ == "__main__":
    sys.exit(main())
