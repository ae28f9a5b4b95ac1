"""Measures one and two workers on this machine, and predicts the speed of more machines.

    python -m bench.scaling                              # about two minutes; needs two cores
    python -m bench.scaling --output_dir result --json scaling.json

Each worker is pinned to one core. Measured, as medians: a step of one worker at several batch
sizes; the all-reduce between two workers over the loopback address at several sizes; a step of two
workers. Fitted by least squares: step = fixed + batch * per image, all-reduce = latency + bytes *
per byte. Predicted, for N workers that share one global batch in a ring (Patarasuk and Yuan 2009):
the step of one worker at batch / N, then 2 (N - 1) / N passes of the gradients' bytes through the
slower of the network and this machine's own copying, and 2 (N - 1) half latencies. The prediction
for two workers on this machine uses neither the two-worker step nor a network. It is checked
against that step: exit code 1 if it is off by more than 30 %.

If the environment variable TF_CONFIG is set, the script is one of the workers that it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import charts, common, turns
from support import cli, records, training
from support.errors import UserError
from support.storage import weights_file

BATCH, BATCHES = 100, (100, 50, 25)
BYTES = (4_000, 400_000, 1_000_000, 4_700_000, 20_000_000)
WORKERS = (1, 2, 4, 8, 16, 32, 64)
GIGABITS = (1, 10, 100)
# Factors of the number of weights, for the prediction.
SIZES = (1, 10)
# A prediction with a larger relative error counts as wrong.
TOLERANCE = 0.3
ARCHITECTURE = records.Architecture((512, 256), 128, "silu")
STEPS_PER_CALL = 20
REDUCTIONS_PER_CALL = 10
JOIN_SECONDS, WORK_SECONDS = 120, 600


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.scaling", __doc__)
    cli.add_seed_flag(parser)
    parser.add_argument(
        "--repeat", type=cli.integer(3), default=15, help="repetitions of each timing"
    )
    common.add_result_flags(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> int:
    """Measures, fits, predicts and checks; prints a table and draws the plot."""
    if "TF_CONFIG" in os.environ:
        print(json.dumps(measure_as_worker(args)))
        return 0
    if len(os.sched_getaffinity(0)) < 2:
        raise UserError(
            "expected two cores, one for each worker, but this process may use only one: "
            "run it on a machine with two, or without pinning it to one"
        )
    common.prepare_results(args)
    one = measure_workers(1, args)[0]
    two = measure_workers(2, args)[0]
    constants = fitted(one, two)
    print_measured(constants, one, two, args.repeat)
    measured, expected = two["steps"][str(BATCH)], predicted(constants, 2)
    ratio = expected / measured
    print(
        f"two workers, batch {BATCH}: measured {1e3 * measured:.2f} ms per step, predicted "
        f"{1e3 * expected:.2f} ms, ratio {ratio:.2f}"
    )
    table = {
        f"{times}x weights, {gigabits} Gbit/s": [
            predicted(constants, count, gigabits, times) for count in WORKERS
        ]
        for times in SIZES
        for gigabits in GIGABITS
    }
    print_predicted(table)
    draw(os.path.join(args.output_dir, "scaling.png"), constants, one, two)
    common.write_json(
        args, {"fitted": constants, "one": one, "two": two, "predicted": table, "ratio": ratio}
    )
    return 0 if abs(ratio - 1) <= TOLERANCE else 1


def measure_workers(count: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs `count` workers of this script and returns what each of them measured."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in sockets]
    for listener in sockets:
        listener.close()
    processes = [_start_worker(addresses, index, args) for index in range(count)]
    try:
        printed = [process.communicate(timeout=WORK_SECONDS) for process in processes]
    except subprocess.TimeoutExpired:
        raise UserError(
            "the workers took more than ten minutes: stop other programs and try again"
        ) from None
    finally:
        for process in processes:
            process.kill()
    for process, (_, stderr) in zip(processes, printed, strict=True):
        if process.returncode:
            lines = stderr.strip().splitlines() or [f"exit code {process.returncode}"]
            raise UserError(f"a worker failed: {lines[-1]}")
    return [json.loads(stdout.splitlines()[-1]) for stdout, _ in printed]


def _start_worker(addresses: list[str], index: int, args: argparse.Namespace) -> subprocess.Popen:
    command = [sys.executable, "-m", "bench.scaling", "--repeat", str(args.repeat)]
    command += ["--seed", str(args.seed)]
    task = {"type": "worker", "index": index}
    config = json.dumps({"cluster": {"worker": addresses}, "task": task})
    return subprocess.Popen(
        command,
        env={**os.environ, "TF_CONFIG": config},
        cwd=common.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def measure_as_worker(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Returns what one worker measures: its steps and, if there are two, the all-reduce."""
    cluster = training.rendezvous.from_environment("multi_worker")
    assert cluster is not None  # `main` has looked
    cores = sorted(os.sched_getaffinity(0))
    # Before TensorFlow counts the cores for its threads.
    os.sched_setaffinity(0, {cores[cluster.index % len(cores)]})
    with training.workers.join("multi_worker", cluster, JOIN_SECONDS) as workers:
        batches = BATCHES if workers.replicas == 1 else (BATCH,)
        steps = {str(batch): step_seconds(workers, batch, args) for batch in batches}
        reductions = {}
        if workers.replicas > 1:
            reductions = {
                str(size): reduction_seconds(workers, size, args.repeat) for size in BYTES
            }
    return {"steps": steps, "reductions": reductions}


def step_seconds(workers: training.workers.Workers, batch: int, args: argparse.Namespace) -> float:
    """Returns the median seconds of a step of the network on random images."""
    images = common.random_images(10_000, args.seed)
    flags = [*common.PLAIN_TRAINING, "--batch", str(batch), "--weight_decay", "0.05"]
    flags += ["--hidden_units", *map(str, ARCHITECTURE.hidden_units)]
    steps = common.compile_own_steps(images, flags, workers, STEPS_PER_CALL)
    random = np.random.default_rng(args.seed)
    indices = random.integers(0, len(images), (STEPS_PER_CALL, batch), np.int32)
    return turns.median_seconds(lambda: steps.run(indices), args.repeat) / STEPS_PER_CALL


def reduction_seconds(workers: training.workers.Workers, size: int, repeat: int) -> float:
    """Returns the median seconds of an all-reduce of `size` bytes of float32."""
    import tensorflow as tf

    strategy = workers.strategy
    assert strategy is not None  # there are two workers
    values = tf.zeros([size // 4])

    def reduced() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce("SUM", values)

    @tf.function
    def several() -> tf.Tensor:
        total = tf.zeros_like(values)
        for _ in tf.range(REDUCTIONS_PER_CALL):
            total += strategy.run(reduced)
        return total

    return turns.median_seconds(several, repeat) / REDUCTIONS_PER_CALL


def fitted(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, float]:
    """Returns the constants of the prediction, by least squares of the relative error.

    Args:
        one: what a single worker measured: the seconds of its `steps`, by batch size.
        two: what one of two workers measured: the seconds of its `reductions`, by bytes.
    """
    fixed, per_image = _line(one["steps"])
    latency, per_byte = _line(two["reductions"])
    places = weights_file.places(ARCHITECTURE)
    numbers = sum(int(np.prod(place.shape)) for part in places.values() for place in part)
    return {
        "fixed": fixed,
        "per_image": per_image,
        "latency": max(latency, 0.0),
        "per_byte": per_byte,
        "bytes": 4 * numbers,
    }


def _line(points: Mapping[str, float]) -> tuple[float, float]:
    """Returns the intercept and the slope of the seconds as a function of their keys."""
    x, y = np.array([(float(key), seconds) for key, seconds in points.items()]).T
    design = np.stack([np.ones_like(x), x], 1) / y[:, None]
    intercept, slope = np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0].tolist()
    return intercept, slope


def predicted(
    constants: Mapping[str, float], count: int, gigabits: float | None = None, times: int = 1
) -> float:
    """Returns the seconds of a step of `count` workers that share the global batch.

    Args:
        constants: as `fitted` returns them.
        count: the number of workers.
        gigabits: Gbit/s of the network; None: the loopback address of this machine.
        times: a factor of the number of weights; arithmetic and optimizer grow by the same.
    """
    step = times * (constants["fixed"] + constants["per_image"] * BATCH / count)
    if count == 1:
        return step
    # The constants were fitted to two workers, which pass the bytes once each way.
    passes = 2 * (count - 1) / count
    network = 8 / (gigabits * 1e9) if gigabits else 0.0
    moving = passes * times * constants["bytes"] * max(constants["per_byte"], network)
    return step + moving + (count - 1) * constants["latency"]


def print_measured(
    constants: Mapping[str, float], one: Mapping[str, Any], two: Mapping[str, Any], repeat: int
) -> None:
    """Prints what the constants were fitted to."""
    print(f"weights: {constants['bytes'] / 1e6:.1f} MB; medians of {repeat}, one core per worker")
    for batch, seconds in one["steps"].items():
        print(f"one worker, batch {batch}: {1e3 * seconds:.2f} ms per step")
    for size, seconds in two["reductions"].items():
        print(f"all-reduce of {int(size) / 1e6:.3f} MB between two workers: {1e3 * seconds:.2f} ms")


def print_predicted(table: Mapping[str, list[float]]) -> None:
    """Prints predicted steps and their efficiency, one column per number of workers."""
    print(f"{'step, ms (efficiency, %)':<26}" + "".join(f"{count:>14}" for count in WORKERS))
    for name, seconds in table.items():
        cells = (
            f"{1e3 * value:8.2f} ({100 * seconds[0] / count / value:3.0f})"
            for count, value in zip(WORKERS, seconds, strict=True)
        )
        print(f"{name:<26}" + "".join(f"{cell:>14}" for cell in cells))


def draw(
    path: str, constants: Mapping[str, float], one: Mapping[str, Any], two: Mapping[str, Any]
) -> None:
    """Draws the predicted and measured time of a step over the number of workers."""
    panels = []
    for times, name in zip(SIZES, ("this model", "ten times the weights"), strict=True):
        curves = [
            charts.Curve(
                f"{gigabits} Gbit/s",
                WORKERS,
                [1e3 * predicted(constants, count, gigabits, times) for count in WORKERS],
            )
            for gigabits in GIGABITS
        ]
        points = []
        if times == 1:
            measured = [1e3 * steps["steps"][str(BATCH)] for steps in (one, two)]
            points = [charts.Curve("measured, loopback", (1, 2), measured)]
        size = times * constants["bytes"] / 1e6
        panels.append(charts.Panel(f"{name}, {size:.0f} MB", curves, points))
    title = f"Predicted step with a global batch of {BATCH}; one core per worker"
    charts.panels(path, panels, title=title, x_label="workers", y_label="step, ms")


if __name__ == "__main__":
    sys.exit(main())
