"""Randomly (from a seed) damages every kind of input file, and checks how the scripts react.

    python -m tests.slow.fuzz --mutants 500 --processes 20     # everything
    python -m tests.slow.fuzz --mutants 25 --processes 0

Each mutant is truncated, bit-flipped, emptied, swapped with another file of its folder, or made
larger. A script must end with exit code 0 and a result, or with 2 and one clear last line; for a
damaged save, it may also use the one before it, with a notice. There must never be a traceback, a
hang, more than 2 GiB of memory, or a change to anything else on disk. Prints a line per kind; the
exit code is 1 if a mutant failed.
"""

import argparse
import contextlib
import gzip
import importlib
import io
import os
import pathlib
import random
import re
import resource
import shutil
import sys
import tempfile
import time

import numpy as np

from support.storage import weights_file
from tests.helpers import SMALL, files_in, interrupted, last_line, run_script, train

KINDS = ("npz", "idx", "weights", "save", "owner")
# Kinds that are damaged in a run in progress.
IN_PROGRESS = ("save", "owner")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SLOWEST_SECONDS = 120
MEMORY_LIMIT = 2 * 2**30


def main(argv=None):
    """Fuzzes every kind; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=500, help="in this process, of all kinds")
    parser.add_argument("--processes", type=int, default=20, help="as processes, of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # many runs in one process cause warnings of retracing
    failed = []
    # Processes come first, as Linux counts the memory of a parent that has grown as its child's.
    memory = 0
    for run, count in ((as_process, args.processes), (in_process, args.mutants // len(KINDS))):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as work:
                counts = fuzz(kind, count, run, args.seed, work)
            failed += counts.pop("failed")
            print(f"{kind}, {run.__name__}: {counts}", flush=True)
        memory = memory or resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"largest process: {memory / 2**20:.0f} MiB")
    if memory > MEMORY_LIMIT:
        failed.append("a process took too much memory")
    print("\n".join(failed) or "every mutant ended as it should")
    return 1 if failed else 0


def fuzz(kind, mutants, run, seed, work):
    """Tries mutants of one kind below the folder `work`; `run` is `in_process` or `as_process`.

    Returns:
        dict of how many ended in which way, with the complaints under `failed`.
    """
    source = os.path.join(work, "source")
    if not os.path.isdir(source):
        originals(kind, source)
    draw = random.Random(f"{kind} {run.__name__} {seed}")
    counts = {"result": 0, "refused": 0, "failed": []}
    for index in range(mutants):
        folder = os.path.join(work, "mutant")
        shutil.copytree(source, folder)
        what = mutate(folder, kind, draw)
        before = contents(folder)
        started = time.monotonic()
        code, printed = run(command(kind, folder, work))
        complaint = judged(code, printed, kind, before, contents(folder))
        if time.monotonic() - started > SLOWEST_SECONDS:
            complaint = "too slow"
        if complaint:
            counts["failed"].append(f"{kind} mutant {index} ({what}): {complaint}: {printed}")
        counts["result" if code == 0 else "refused"] += 1
        shutil.rmtree(folder)
    return counts


def originals(kind, folder):
    """Writes the undamaged files of one kind below `folder`, and returns it."""
    os.makedirs(folder)
    random_images = np.random.default_rng(0).integers(0, 256, (132, 28, 28)).astype(np.uint8)
    arrays = {
        "x_train": random_images[:110],
        "y_train": np.arange(110, dtype=np.uint8) % 10,
        "x_test": random_images[110:],
        "y_test": np.arange(22, dtype=np.uint8) % 10,
    }
    if kind == "npz":
        np.savez_compressed(os.path.join(folder, "mnist.npz"), **arrays)
    elif kind == "idx":
        for name, array in zip(IDX_FILES, arrays.values(), strict=True):
            header = np.array([2048 + array.ndim, *array.shape], ">u4").tobytes()
            with gzip.open(os.path.join(folder, f"{name}.gz"), "wb") as file:
                file.write(header + array.tobytes())
    else:
        in_progress = kind in IN_PROGRESS
        with (
            contextlib.redirect_stdout(io.StringIO()),
            interrupted(steps=30 if in_progress else 10**9, steps_per_call=6),
        ):
            code = train(pathlib.Path(folder), "--epoch", "3", "--save_every", "0")
        assert code == (143 if in_progress else 0)
    return folder


def command(kind, folder, work):
    """The script and flags that read the damaged files."""
    output = ("--output_dir", os.path.join(work, "out"))
    if kind in ("npz", "idx"):
        data = ("--dataset", "custom", "--data_dir", folder)
        return ("eval.py", "--load_weight_dir", any_weights(work), *data, *output)
    weights_dir = os.path.join(folder, "weights")
    if kind in IN_PROGRESS:
        folders = ("--save_weight_dir", weights_dir, "--log_dir", os.path.join(folder, "log"))
        return ("train.py", *SMALL, *folders, "--epoch", "3")
    return ("eval_genresult.py", "--load_weight_dir", weights_dir, *output)


def any_weights(work):
    """Undamaged weights, with which damaged data is read."""
    folder = os.path.join(work, "undamaged")
    if not os.path.isdir(folder):
        originals("weights", folder)
    return os.path.join(folder, "weights")


def targets(folder, kind):
    """The files of one kind that may be damaged, and the files they may be swapped with."""
    weights_dir = os.path.join(folder, "weights")
    if kind == "weights":
        return [weights_file.finished_path(weights_dir)]
    if kind == "save":
        return [weights_file.save_path(weights_dir, weights_file.saved_steps(weights_dir)[-1])]
    if kind == "owner":
        return [os.path.join(folder, "log", "owner.json")]
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


def mutate(folder, kind, draw):
    """Damages one file below `folder`; returns what was done."""
    path = draw.choice(targets(folder, kind))
    how = draw.choice(("truncate", "flip", "flip", "flip", "empty", "swap", "enlarge"))
    with open(path, "rb") as file:
        content = bytearray(file.read())
    if how == "truncate":
        content = content[: draw.randrange(len(content))]
    elif how == "flip":
        for _ in range(draw.choice((1, 1, 1, 8))):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif how == "empty":
        content = b""
    elif how == "swap":
        others = [
            os.path.join(base, name)
            for base, _, names in os.walk(folder)
            for name in names
            if os.path.join(base, name) != path
        ]
        with open(draw.choice(sorted(others) or [path]), "rb") as file:
            content = file.read()
    else:
        content = bytes(content) + draw.randbytes(draw.choice((1, 1000, 3_000_000)))
    with open(path, "wb") as file:
        file.write(content)
    return f"{how} {os.path.basename(path)}"


def in_process(argv):
    """Runs `main` of a script in this process; returns its exit code and all it printed."""
    script = importlib.import_module(argv[0][:-3])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = script.main(list(argv[1:]))
        except BaseException as error:
            return 1, f"{printed.getvalue()}\nTraceback: {error!r}"
    return code, printed.getvalue()


def as_process(argv):
    """Runs a script as a user would; returns its exit code and all it printed."""
    run = run_script(*argv, cwd=tempfile.gettempdir())
    return run.returncode, run.stdout + run.stderr


def judged(code, printed, kind, before, after):
    """Returns what is wrong with the way a mutant ended, or an empty string."""
    if "Traceback" in printed or code not in (0, 2):
        return f"exit code {code}"
    if code == 2 and not re.match(r"\w+\.py: error: \S", last_line(printed)):
        return "no clear last line"
    if kind == "save" and code == 0:
        return "" if "Notice" in printed else "a damaged save passed"
    if kind == "owner" and code == 0:
        return ""
    return "" if before == after else "files changed"


def contents(folder):
    """Every file below `folder` with its content."""
    return files_in(pathlib.Path(folder))


if __name__ == "__main__":
    sys.exit(main())
