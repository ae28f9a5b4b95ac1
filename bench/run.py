"""Measures speed: training beside the machine's limit and its peers, and what users wait for.

    pip install -r bench/requirements.txt                  # PyTorch and JAX; skipped where absent
    python -m bench.run --data_dir ~/mnist                 # half an hour on two idle cores
    python -m bench.run --quick --json speed.json          # the headline in under ten minutes

Things that are compared take turns (A B C A B C), each in a process of its own that waits meanwhile
(bench/contenders.py); figures are medians, with the smallest and the largest beside them. The limit
is the fastest float32 product of two 2048-cubes among NumPy, TensorFlow and JAX on all cores; an
epoch's floor is its multiply-adds at that speed, counted from the sizes of the layers. Draws
speed.png to --output_dir. Anything else that runs on the machine spoils the figures.
"""

import json
import os
import pty
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from bench import charts
from bench.contenders import EXIT_ABSENT, MATMUL_SIDE, MATMULS
from data import PIXELS
from support import UserError, cli, files

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

IMAGES, BATCH, HIDDEN_UNITS, LATENT_DIM = 55_000, 100, (512, 256), 128
PEERS = ("keras_fit", "keras_fit_compiled", "torch_eager", "torch_compile", "jax_scan")
MATMUL_NAMES = ("matmul_numpy", "matmul_tensorflow", "matmul_jax")
NAMES = {
    "ours": "this repository",
    "keras_fit": "Keras fit",
    "keras_fit_compiled": "Keras fit, XLA, 50 steps a call",
    "torch_eager": "PyTorch, fused Adam",
    "torch_compile": "PyTorch, torch.compile",
    "jax_scan": "JAX, lax.scan over the epoch",
}
WARM_UP = 2
# Share by which losses of a second epoch may differ: those of four seeds do by up to 2.6 %.
SAME_LOSS = 0.03
GENERATED = (100_000, 1_000_000)


def parser():
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.run", __doc__)
    parser.add_argument("--repeat", type=cli.integer(3), default=9, help="turns of each")
    parser.add_argument(
        "--quick", action="store_true", help="the headline figures alone, five turns of each"
    )
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures to FILE too")
    cli.add_data_flags(parser, "MNIST where it can be had, otherwise the embedded digits")
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args):
    """Limit, training, the run as a user sees it, and the rest; then table, chart, JSON."""
    if args.quick:
        args.repeat = min(args.repeat, 5)
    files.writable_folder(args.output_dir)
    if args.json:
        files.writable_folder(os.path.dirname(os.path.abspath(args.json)))
    found = {"cores": len(os.sched_getaffinity(0)), "repeat": args.repeat}
    measure_limit(found, args)
    measure_training(found, args)
    measure_as_run(found, args)
    if not args.quick:
        measure_start_up(found, args)
        measure_generation(found, args)
        measure_nll(found, args)
        measure_growth(found, args)
    draw(os.path.join(args.output_dir, "speed.png"), found)
    if args.json:
        files.write_json(args.json, found)


class Contender:
    """One process of bench/contenders.py, which works when it is its turn.

    Args:
        name: of a contender.
        args: this script's flags.
        options: flags of contenders.py.

    Raises:
        ModuleNotFoundError: its framework is not installed.
        UserError: it failed otherwise.
    """

    def __init__(self, name, args, **options):
        self.name = name
        command = [sys.executable, "-m", "bench.contenders", name]
        command += data_flags(args)
        for flag, value in options.items():
            command += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
        # Closed by `close`: it lives as long as the process.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        started = time.perf_counter()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, text=True, bufsize=1, **pipes)
        self.answer()
        self.start_up = time.perf_counter() - started

    def answer(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines() or [f"exit code {code}"]
        self.close()
        if code == EXIT_ABSENT:
            raise ModuleNotFoundError(said[-1])
        raise UserError(f"contender {self.name} failed: {said[-1]}")

    def turn(self):
        """Lets it work once; returns its seconds and its loss."""
        answer = self.ask()
        return answer["seconds"], answer["loss"]

    def ask(self):
        """The same; returns all that it answers."""
        self.process.stdin.write("\n")
        return self.answer()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.errors.close()


def in_turn(contenders, args, warm_up=WARM_UP, also=None):
    """Lets contenders work in turn.

    Args:
        contenders: dict of name -> (contender of contenders.py, its options); closed at the end.
        also: dict of name -> anything else that has turns; not closed.

    Returns:
        dict of name -> {"seconds": of each turn after the warm-up, "loss": of the last turn of the
        warm-up}; without those that are not installed.
    """
    started, found = {}, {}
    try:
        for label, (name, options) in contenders.items():
            try:
                started[label] = Contender(name, args, **options)
            except ModuleNotFoundError as error:
                print(f"skipped {label}: {error}; pip install -r bench/requirements.txt")
        everyone = started | (also or {})
        for label, contender in everyone.items():
            losses = [contender.turn()[1] for _ in range(warm_up)]
            found[label] = {"seconds": [], "loss": losses[-1]}
        for _ in range(args.repeat):
            for label, contender in everyone.items():
                found[label]["seconds"].append(contender.turn()[0])
    finally:
        for contender in started.values():
            contender.close()
    return found


def median(found, label):
    """The median seconds of what `in_turn` found."""
    return statistics.median(found[label]["seconds"])


def data_flags(args):
    """Returns this script's data flags as a child takes them."""
    given = ["--data_dir", args.data_dir] if args.data_dir else []
    return ["--dataset", args.dataset, *given]


def flops_of_training(hidden_units=HIDDEN_UNITS, samples=1):
    """Returns the multiplications and additions of one image's step, in matrix products alone.

    Each layer is three products of 2 * inputs * outputs: forward, the gradient of its weights, and
    that of its inputs, which the first layer of the encoder does not need.
    """
    inwards = [PIXELS, *hidden_units, 2 * LATENT_DIM]
    encoder = 6 * sum(map(product, inwards, inwards[1:])) - 2 * product(*inwards[:2])
    return encoder + 3 * samples * flops_of_decoding(hidden_units)


def flops_of_decoding(hidden_units=HIDDEN_UNITS):
    """The same for the decoder of one z, forward alone."""
    outwards = [LATENT_DIM, *reversed(hidden_units), PIXELS]
    return 2 * sum(map(product, outwards, outwards[1:]))


def product(a, b):
    return a * b


def measure_limit(found, args):
    """Finds the FLOP/s of the fastest matmul."""
    timed = in_turn({name: (name, {}) for name in MATMUL_NAMES}, args)
    speeds = {name: 2 * MATMUL_SIDE**3 * MATMULS / median(timed, name) for name in timed}
    found["limit_flops"] = max(speeds.values())
    found["matmul_flops"] = speeds
    heading(f"The limit: float32 matmul of 2048-cubes, {found['cores']} cores")
    for name, speed in speeds.items():
        print(f"{name.removeprefix('matmul_'):<34}{speed / 1e9:>9.1f} GFLOP/s")


def measure_training(found, args):
    """Measures an epoch of each contender at several batches."""
    found["training"] = {}
    for batch in (BATCH, 1024) if args.quick else (BATCH, 256, 1024):
        options = {"batch": batch, "images": IMAGES}
        names = ("ours",) if args.quick and batch != BATCH else ("ours", *PEERS)
        timed = in_turn({name: (name, options) for name in names}, args)
        images = IMAGES // batch * batch
        floor = images * flops_of_training() / found["limit_flops"]
        rows = {
            name: {
                "median_seconds": median(timed, name),
                "seconds": timed[name]["seconds"],
                "images_per_second": images / median(timed, name),
                "share_of_limit": floor / median(timed, name),
                "loss_after_two_epochs": timed[name]["loss"],
            }
            for name in timed
        }
        found["training"][str(batch)] = rows
        heading(f"An epoch of {images:,} images, batch {batch}; floor {floor:.2f} s")
        print(f"{'':<34}{'seconds':>9}{'(range)':>15}{'images/s':>10}{'of limit':>10}{'loss':>9}")
        for name, row in rows.items():
            seconds = row["seconds"]
            print(
                f"{NAMES[name]:<34}{row['median_seconds']:>9.2f}"
                f"{f'({min(seconds):.2f}-{max(seconds):.2f})':>15}"
                f"{row['images_per_second']:>10,.0f}{100 * row['share_of_limit']:>9.0f}%"
                f"{row['loss_after_two_epochs']:>9.2f}"
            )
        losses = [row["loss_after_two_epochs"] for row in rows.values()]
        if max(losses) > (1 + SAME_LOSS) * min(losses):
            raise UserError(f"batch {batch}: the losses differ: the contenders train other models")
    rows = found["training"][str(BATCH)]
    ours = rows["ours"]["median_seconds"]
    peers = {name: row["median_seconds"] for name, row in rows.items() if name != "ours"}
    fastest = min(peers, key=peers.get)
    found |= {
        "ratio_to_fastest_peer": peers[fastest] / ours,
        "fastest_peer": fastest,
        "ratio_to_keras_fit": peers["keras_fit"] / ours,
        "share_of_limit": rows["ours"]["share_of_limit"],
        "share_of_limit_batch_1024": found["training"]["1024"]["ours"]["share_of_limit"],
    }
    print(
        f"ours: {found['ratio_to_fastest_peer']:.2f} times the fastest peer "
        f"({NAMES[fastest]}), {found['ratio_to_keras_fit']:.2f} times Keras fit"
    )


def measure_as_run(found, args):
    """Measures train.py itself on a terminal, beside the bare loop of the same recipe."""
    with tempfile.TemporaryDirectory() as work, UserRun(work, args) as as_run:
        timed = in_turn(
            {"bare": ("ours_default", {}), "validation": ("validation", {})},
            args,
            also={"as_run": as_run},
        )
    seconds = {label: median(timed, label) for label in timed}
    found["as_run_seconds"] = seconds
    found["overhead_as_run"] = (seconds["as_run"] - seconds["validation"]) / seconds["bare"] - 1
    heading("train.py with its defaults, as a user runs it: terminal, TensorBoard, checkpoints")
    print(f"{'bare loop, an epoch':<34}{seconds['bare']:>9.2f} s")
    print(f"{'train.py, epoch to epoch':<34}{seconds['as_run']:>9.2f} s")
    print(f"{'of which the validation pass':<34}{seconds['validation']:>9.2f} s")
    print(f"overhead without it: {100 * found['overhead_as_run']:.1f} %")


class UserRun:
    """train.py on a terminal of its own, stopped between its turns: a turn is one epoch."""

    def __init__(self, work, args):
        mine, its = pty.openpty()
        command = [sys.executable, os.path.join(ROOT, "train.py"), *data_flags(args)]
        command += ["--save_weight_dir", f"{work}/weights", "--log_dir", f"{work}/log"]
        command += ["--epoch", "1000"]
        self.process = subprocess.Popen(command, stdout=its, stderr=its, cwd=work)
        os.close(its)
        self.terminal, self.unread = mine, b""
        self.until_epoch_ends()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def turn(self):
        """Lets it run to the end of its epoch; returns the seconds, and no loss."""
        started = time.perf_counter()
        self.process.send_signal(signal.SIGCONT)
        self.until_epoch_ends()
        return time.perf_counter() - started, None

    def until_epoch_ends(self):
        """Reads the terminal to the line that ends an epoch, and stops the process there."""
        while not (line := re.search(rb"validation; .*images/s\r?\n", self.unread)):
            try:
                self.unread += os.read(self.terminal, 65536)
            except OSError:
                # A terminal whose other end is gone answers with an error, not with an end.
                said = self.unread.decode(errors="replace").strip().splitlines()
                raise UserError(f"train.py failed: {said[-1] if said else 'no output'}") from None
        self.process.send_signal(signal.SIGSTOP)
        self.unread = self.unread[line.end() :]


def measure_start_up(found, args):
    """Measures what the small scripts take from the command to the prompt, in turn."""
    heading("From the command to the prompt")
    with tempfile.TemporaryDirectory() as work:
        folders = ["--save_weight_dir", f"{work}/weights", "--log_dir", f"{work}/log"]
        commands = {
            "import tensorflow": ["-c", "import tensorflow"],
            "train.py --help": ["train.py", "--help"],
            "eval.py": ["eval.py", "--output_dir", work, *data_flags(args)],
            "eval_genresult.py": ["eval_genresult.py", "--output_dir", work],
            "train.py, ten steps": [
                *("train.py", "--limit", "1000", "--epoch", "1", "--overwrite"),
                *folders,
                *data_flags(args),
            ],
        }
        taken = {name: [] for name in commands}
        for _ in range(args.repeat):
            for name, command in commands.items():
                taken[name].append(child(command)[0])
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    found["start_up_seconds"] = seconds
    for name, value in seconds.items():
        ratio = value / seconds["import tensorflow"]
        print(f"{name:<34}{value:>9.2f} s{ratio:>8.2f} of the import")


def child(command):
    """Runs a script of this repository; returns its seconds and its peak of resident bytes."""
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=printed, stderr=printed
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            printed.seek(0)
            said = printed.read().strip().splitlines()
            raise UserError(f"{' '.join(command[:2])} failed: {said[-1] if said else status}")
    return seconds, 1024 * usage.ru_maxrss


def measure_generation(found, args):
    """Measures digits a second in bulk, beside the decoder's arithmetic, and memory."""
    heading("Generation: eval_genresult.py, classic sizes")
    measured = {count: [] for count in GENERATED}
    with tempfile.TemporaryDirectory() as work:
        # The speed is the same whatever the weights are.
        folder = f"{work}/weights"
        training = ["--dataset", "digits", "--limit", "100", "--epoch", "1"]
        training += ["--save_weight_dir", folder, "--log_dir", f"{work}/log"]
        child(["train.py", *training])
        command = ["eval_genresult.py", "--output_dir", work, "--load_weight_dir", folder, "--num"]
        for _ in range(3):
            for count in GENERATED:
                measured[count].append(child([*command, str(count)]))
    few, many = GENERATED
    seconds, peak = (
        {count: statistics.median(run[i] for run in runs) for count, runs in measured.items()}
        for i in (0, 1)
    )
    speed = (many - few) / (seconds[many] - seconds[few])
    found["generation"] = {
        "digits_per_second": speed,
        "share_of_limit": speed * flops_of_decoding() / found["limit_flops"],
        "peak_bytes": peak,
    }
    print(
        f"{speed:,.0f} digits/s between {few:,} and {many:,}, "
        f"{100 * found['generation']['share_of_limit']:.0f} % of the decoder's matmul limit; "
        f"peak memory {peak[few] / 2**20:,.0f} and {peak[many] / 2**20:,.0f} MiB"
    )


def measure_nll(found, args, few=100, many=600, images=1000):
    """Measures samples of the nll estimate a second, beside the decoder's arithmetic."""
    heading("nll: samples of the importance-weighted estimate")
    options = {f"{samples}": ("nll", {"samples": samples}) for samples in (few, many)}
    timed = in_turn(options, args, warm_up=1)
    # The difference: both compile, which is no part of the speed.
    seconds = median(timed, f"{many}") - median(timed, f"{few}")
    speed = (many - few) * images / seconds
    found["nll"] = {
        "samples_per_second": speed,
        "share_of_limit": speed * flops_of_decoding() / found["limit_flops"],
    }
    share = 100 * found["nll"]["share_of_limit"]
    print(f"{speed:,.0f} samples/s, {share:.0f} % of the decoder's matmul limit")


def measure_growth(found, args):
    """Measures how an epoch grows with images, widths and samples, beside what FLOPs predict."""
    base = {"images": 11_000}
    grown = {
        "11,000 images, 512-256, L = 1": base,
        "2 times the images": {"images": 22_000},
        "4 times the images": {"images": 44_000},
        "2 times the widths": base | {"hidden_units": tuple(2 * width for width in HIDDEN_UNITS)},
        "4 times the widths": base | {"hidden_units": tuple(4 * width for width in HIDDEN_UNITS)},
        "L = 2": base | {"samples": 2},
        "L = 5": base | {"samples": 5},
        "L = 10": base | {"samples": 10},
    }
    timed = in_turn({name: ("ours", options) for name, options in grown.items()}, args)
    first = next(iter(grown))
    heading("How the cost of an epoch grows, and what the FLOPs predict")
    found["growth"] = {}
    for name, options in grown.items():
        samples = options.get("samples", 1)
        flops = flops_of_training(options.get("hidden_units", HIDDEN_UNITS), samples)
        predicted = options["images"] * flops / (base["images"] * flops_of_training())
        measured = median(timed, name) / median(timed, first)
        found["growth"][name] = {"measured": measured, "predicted": predicted}
        print(
            f"{name:<34}{median(timed, name):>9.2f} s{measured:>8.2f}x, predicted {predicted:.2f}x"
        )


def heading(text):
    """Prints the title of a table."""
    print(f"\n{text}", flush=True)


def draw(path, found):
    """Draws images a second of every contender, and the limit."""
    rows = found["training"][str(BATCH)]
    names = sorted(rows, key=lambda name: -rows[name]["images_per_second"])
    charts.ranking(
        path,
        [NAMES[name] for name in names],
        [rows[name]["images_per_second"] for name in names],
        [[IMAGES / edge(rows[name]["seconds"]) for edge in (max, min)] for name in names],
        found["limit_flops"] / flops_of_training(),
        "the machine's matmul limit",
        f"Training, batch {BATCH}, float32, {found['cores']} cores",
        "images a second: median, and range of the turns",
    )


if __name__ == "__main__":
    sys.exit(main())
