"""Kills a training run at random moments, again and again, and compares the result.

    python -m tests.slow.soak --kills 50 --epoch 40 --data_dir ~/mnist      # a quarter of an hour
    python -m tests.slow.soak --kills 3 --epoch 60 --dataset digits

One run is left alone. The other gets SIGKILL `--kills` times, at moments drawn uniformly from the
first `--longest` seconds after each start, and is resumed each time. In the end, the weights must
be bit-identical, the curves equal point for point under TensorBoard's EventAccumulator and its two
loaders, and no stray file left. The exit code is 0 if all of this holds, else 1.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import numpy as np

from tests.helpers import ROOT, TAGS, arrays_of

PARTS = ("train", "val")


def main(argv=None):
    """Runs the soak; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epoch", type=int, default=40)
    parser.add_argument(
        "--longest",
        type=float,
        default=None,
        help="seconds of a life at most; by default so that the run outlives its last kill",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--dataset", default="auto")
    parser.add_argument("--data_dir", default="")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        return soak(args, work)


def soak(args, work):
    """Does both runs in `work`, prints what differs, and returns the exit code."""
    alone, killed = os.path.join(work, "alone"), os.path.join(work, "killed")
    started = time.monotonic()
    life(args, alone, None)
    finished = time.monotonic()
    startup = seconds_to_first_point(alone, time.time() - (finished - started))
    training = finished - started - startup
    longest = args.longest or startup + 0.8 * training / args.kills
    moments = random.Random(args.seed)
    kills, started = 0, time.monotonic()
    while kills < args.kills:
        if life(args, killed, moments.uniform(0.0, longest)) == 0:
            print("The run finished before its last kill: take a larger --epoch.")
            return 1
        kills += 1
        print(f"kill {kills} of {args.kills}, {time.monotonic() - started:.0f} s", flush=True)
    life(args, killed, None)
    complaints = stray_files(killed) + differences(alone, killed)
    print("\n".join(complaints) or f"{kills} kills: weights, curves and files are all equal.")
    return 1 if complaints else 0


def life(args, folder, seconds):
    """Starts train.py and kills it after `seconds` (None: never); returns its exit code, if any."""
    command = [sys.executable, os.path.join(ROOT, "train.py"), "--epoch", str(args.epoch)]
    command += ["--save_every", "0.5", "--dataset", args.dataset]
    command += ["--save_weight_dir", os.path.join(folder, "weights")]
    command += ["--log_dir", os.path.join(folder, "log")]
    command += ["--data_dir", args.data_dir] if args.data_dir else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, printed = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    if process.returncode:
        raise SystemExit(f"train.py failed with {process.returncode}: {printed.decode()}")
    return process.returncode


def seconds_to_first_point(folder, started):
    """How long after `started` (seconds since the epoch) a run wrote its first point."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(os.path.join(folder, "log", "val"))
    events.Reload()
    return events.Scalars(TAGS["loss_total"])[0].wall_time - started


def stray_files(folder):
    """Lists files that a finished run should not have left."""
    found = set(os.listdir(os.path.join(folder, "weights"))) - {"vae.keras", ".weights.lock"}
    found |= set(os.listdir(os.path.join(folder, "log"))) - {"owner.json", ".log.lock", *PARTS}
    return [f"stray: {name}" for name in sorted(found)]


def differences(alone, killed):
    """Compares weights and curves of two runs; returns a line for each difference."""
    complaints = []
    loaded = [arrays_of(os.path.join(run, "weights")) for run in (alone, killed)]
    for index, (one, other) in enumerate(zip(*loaded, strict=True)):
        if not np.array_equal(one, other):
            complaints.append(f"weights differ: array {index}")
    readers = {
        "EventAccumulator": accumulated,
        "the default loader": lambda log: served(log, "auto"),
        "--load_fast=false": lambda log: served(log, "false"),
    }
    for name, read in readers.items():
        expected, found = (read(os.path.join(run, "log")) for run in (alone, killed))
        if not expected or any(not curve for curve in expected.values()):
            complaints.append(f"{name}: no curves")
        for key, curve in expected.items():
            steps = [step for step, _ in found.get(key, ())]
            if len(steps) != len(set(steps)):
                complaints.append(f"{name}: {key} has steps twice")
            elif found.get(key) != curve:
                complaints.append(f"{name}: {key} differs")
    return complaints


def accumulated(log):
    """Every curve below `log` from TensorBoard's EventAccumulator: {(part, tag): points}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = {}
    for part in PARTS:
        events = EventAccumulator(os.path.join(log, part), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            curves[part, name] = [(event.step, event.value) for event in events.Scalars(name)]
    return curves


def served(log, load_fast):
    """The same curves, as TensorBoard's server sends them to a browser."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", log, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--load_fast", load_fast]
    command += ["--samples_per_plugin", "scalars=1000000", "--reload_interval", "1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/data/plugin/scalars"
    try:
        # It reads in the background: done when two answers a few seconds apart are the same.
        curves, before = None, {}
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (curves != before or not curves):
            before = curves
            time.sleep(4)
            try:
                tags = asked(f"{address}/tags")
                curves = {
                    (run, tag): [
                        (step, value)
                        for _, step, value in asked(
                            f"{address}/scalars?{urllib.parse.urlencode({'run': run, 'tag': tag})}"
                        )
                    ]
                    for run, found in tags.items()
                    for tag in found
                }
            except OSError:
                curves = None  # the server is not ready yet
        return curves or {}
    finally:
        server.terminate()
        server.wait()


def asked(address):
    """Returns the JSON from a local address."""
    with urllib.request.urlopen(address, timeout=30) as response:
        return json.load(response)


if __name__ == "__main__":
    sys.exit(main())
