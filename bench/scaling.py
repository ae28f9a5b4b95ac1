"""Measures one and two workers on this machine and predicts many on a network.

    python -m bench.scaling                              # about two minutes; needs two cores
    python -m bench.scaling --output_dir result --json scaling.json

A worker is pinned to one core. Measured, medians: a step of one worker at several batches; the
all-reduce between two workers over the loopback address at several sizes; a step of two workers.
Fitted by least squares: step = fixed + batch * per image, all-reduce = latency + bytes * per byte.
Predicted for N workers that share one global batch, by a ring (Patarasuk and Yuan 2009): the step
of one at batch / N, then 2 (N - 1) / N passes of the gradients' bytes through the slower of the
network and this machine's own copying, and 2 (N - 1) half latencies. The prediction for two on this
machine uses neither the two-worker step nor a network, and is checked against that step: exit
code 1 where it is off by more than 30 %.

With the environment variable TF_CONFIG set, the script is one of the workers that it starts.
"""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np

import train
from bench import charts
from support import UserError, cli, files, team, weights

BATCH, BATCHES = 100, (100, 50, 25)
BYTES = (4_000, 400_000, 1_000_000, 4_700_000, 20_000_000)
WORKERS = (1, 2, 4, 8, 16, 32, 64)
GIGABITS = (1, 10, 100)
# A prediction further off than this share is no prediction.
TOLERANCE = 0.3


def parser():
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.scaling", __doc__)
    parser.add_argument("--repeat", type=cli.integer(3), default=15, help="of each timing")
    parser.add_argument("--json", default="", metavar="FILE", help="write the figures to FILE too")
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args):
    """Measures, fits, predicts, checks; prints a table and draws the plot."""
    if "TF_CONFIG" in os.environ:
        print(json.dumps(work(args)))
        return 0
    if len(os.sched_getaffinity(0)) < 2:
        raise UserError("two workers need two cores: this process may use one only")
    files.writable_folder(args.output_dir)
    if args.json:
        files.writable_folder(os.path.dirname(os.path.abspath(args.json)))
    one, (two, _) = workers(1, args)[0], workers(2, args)
    cli.quiet_tensorflow()
    found = fitted(one, two)
    print(f"weights: {found['bytes'] / 1e6:.1f} MB; medians of {args.repeat}, one core a worker")
    for batch, seconds in one["steps"].items():
        print(f"one worker, batch {batch}: {1e3 * seconds:.2f} ms a step")
    for size, seconds in two["reductions"].items():
        print(f"all-reduce of {int(size) / 1e6:.3f} MB between two: {1e3 * seconds:.2f} ms")
    measured = two["steps"][str(BATCH)]
    expected = predicted(found, 2)
    ratio = expected / measured
    print(
        f"two workers, batch {BATCH}: measured {1e3 * measured:.2f} ms a step, predicted "
        f"{1e3 * expected:.2f} ms, ratio {ratio:.2f}"
    )
    table = {
        f"{times}x weights, {gigabits} Gbit/s": [
            predicted(found, count, gigabits, times) for count in WORKERS
        ]
        for times in (1, 10)
        for gigabits in GIGABITS
    }
    print(f"{'step, ms (efficiency, %)':<26}" + "".join(f"{count:>14}" for count in WORKERS))
    for name, seconds in table.items():
        cells = (
            f"{1e3 * value:8.2f} ({100 * seconds[0] / count / value:3.0f})"
            for count, value in zip(WORKERS, seconds, strict=True)
        )
        print(f"{name:<26}" + "".join(f"{cell:>14}" for cell in cells))
    draw(os.path.join(args.output_dir, "scaling.png"), found, one, two)
    if args.json:
        figures = {"fitted": found, "one": one, "two": two, "predicted": table, "ratio": ratio}
        files.write_json(args.json, figures)
    return 0 if abs(ratio - 1) <= TOLERANCE else 1


def workers(count, args):
    """Runs `count` workers of this script and returns what each of them measured."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in sockets]
    for listener in sockets:
        listener.close()
    command = [sys.executable, "-m", "bench.scaling", "--repeat", str(args.repeat)]
    command += ["--seed", str(args.seed)]
    started = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        environment = {**os.environ, "TF_CONFIG": config}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
    try:
        printed = [process.communicate(timeout=600) for process in started]
    except subprocess.TimeoutExpired:
        raise UserError("the workers took more than ten minutes: is the machine busy?") from None
    finally:
        for process in started:
            process.kill()
    for process, (_, stderr) in zip(started, printed, strict=True):
        if process.returncode:
            said = stderr.strip() or f"exit code {process.returncode}"
            raise UserError(f"a worker failed: {said.splitlines()[-1]}")
    return [json.loads(stdout.splitlines()[-1]) for stdout, _ in printed]


def work(args):
    """What one worker measures: its steps, and the all-reduce where there are two."""
    machines = team.described("multi_worker")
    cores = sorted(os.sched_getaffinity(0))
    # Before TensorFlow counts them for its threads.
    os.sched_setaffinity(0, {cores[machines[1] % len(cores)]})
    with team.join("multi_worker", machines, 120) as crew:
        batches = BATCHES if crew.replicas == 1 else (BATCH,)
        steps = {str(batch): step_seconds(crew, batch, args) for batch in batches}
        reductions = {}
        if crew.replicas > 1:
            reductions = {str(size): reduction_seconds(crew, size, args.repeat) for size in BYTES}
    return {"steps": steps, "reductions": reductions}


def step_seconds(crew, batch, args, size=20):
    """Returns the median seconds of a step of the default model on random images."""
    import model
    from support import window

    with crew.scope():
        vae = model.VAE()
        optimizer = train.adamw(vae.trainable_variables, 1e-3, 0.05)
    random = np.random.default_rng(args.seed)
    images = random.integers(0, 256, (10_000, 784), np.uint8)
    run = window.compiled(
        lambda x, noise, _: train.loss_and_gradients(vae, x, noise, "bce", 1.0),
        lambda gradients: train.update(optimizer, gradients, vae.trainable_variables),
        ("objective",),
        window.inputs(images, 0, vae.latent_dim),
        optimizer.iterations,
        size,
        batch,
        crew,
    )
    indices = random.integers(0, len(images), (size, batch), np.int32)
    return median_seconds(lambda: run(indices), args.repeat) / size


def reduction_seconds(crew, size, repeat, times=10):
    """Returns the median seconds of an all-reduce of `size` bytes of float32."""
    import tensorflow as tf

    values = tf.zeros([size // 4])

    def reduced():
        return tf.distribute.get_replica_context().all_reduce("SUM", values)

    @tf.function
    def several():
        total = tf.zeros_like(values)
        for _ in tf.range(times):
            total += crew.strategy.run(reduced)
        return total

    return median_seconds(several, repeat) / times


def median_seconds(function, repeat):
    """Returns the median wall time of a call, after one that compiles."""
    import statistics

    function()
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def fitted(one, two):
    """Returns the constants of the prediction, by least squares of the relative error."""

    def line(points):
        x, y = np.array([(float(at), seconds) for at, seconds in points.items()]).T
        design = np.stack([np.ones_like(x), x], 1) / y[:, None]
        return np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0].tolist()

    fixed, per_image = line(one["steps"])
    latency, per_byte = line(two["reductions"])
    architecture = {"hidden_units": [512, 256], "latent_dim": 128}
    shapes = [shape for part in weights.shapes(architecture).values() for _, shape in part]
    size = 4 * sum(int(np.prod(shape)) for shape in shapes)
    return {
        "fixed": fixed,
        "per_image": per_image,
        "latency": max(latency, 0.0),
        "per_byte": per_byte,
        "bytes": size,
    }


def predicted(found, count, gigabits=None, times=1):
    """Returns the seconds of a step of `count` workers that share the global batch.

    Args:
        gigabits: a second, of the network; None: the loopback address of this machine.
        times: how many times as many weights; arithmetic and optimizer grow alike.
    """
    step = times * (found["fixed"] + found["per_image"] * BATCH / count)
    if count == 1:
        return step
    # Two workers pass the bytes once each way: that is what the fitted constants hold.
    passes = 2 * (count - 1) / count
    network = 8 / (gigabits * 1e9) if gigabits else 0.0
    moving = passes * times * found["bytes"] * max(found["per_byte"], network)
    return step + moving + (count - 1) * found["latency"]


def draw(path, found, one, two):
    """Draws the predicted step over the number of workers, and what was measured."""
    panels = []
    for times, name in ((1, "this model"), (10, "ten times the weights")):
        curves = [
            (
                f"{gigabits} Gbit/s",
                WORKERS,
                [1e3 * predicted(found, count, gigabits, times) for count in WORKERS],
            )
            for gigabits in GIGABITS
        ]
        points = []
        if times == 1:
            measured = [1e3 * steps["steps"][str(BATCH)] for steps in (one, two)]
            points = [("measured, loopback", (1, 2), measured)]
        size = times * found["bytes"] / 1e6
        panels.append((f"{name}, {size:.0f} MB", curves, points))
    title = f"Predicted step of a global batch of {BATCH}; one core a worker"
    charts.lines(path, panels, title, "workers", "step, ms")


if __name__ == "__main__":
    sys.exit(main())
