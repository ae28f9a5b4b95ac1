"""Evaluates a folder again and again while a run saves into it.

    python -m tests.slow.readers --evaluations 1000      # some minutes

The run saves after each call of several steps; saves that it removes are set aside. Each evaluation
reads the newest save as eval.py does and computes its metrics. In the end, these must be
bit-identical to the metrics of the save of the same step. Prints a total; the exit code is 1 if
any differed.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import data
import model
from support.storage import weights, weights_file
from tests.helpers import ROOT, SMALL, folders, wait_for

IMAGES = data.load("digits").test.images[:50]
# A run that sets its older saves aside instead of removing them.
KEEPING = """
import os, sys
from support.storage import saves, weights_file
aside = sys.argv.pop(1)
def kept(self, steps):
    for step in steps:
        path = weights_file.save_path(self.folder, step)
        os.rename(path, os.path.join(aside, os.path.basename(path)))
saves.Saves._remove = kept
import train
sys.exit(train.main(sys.argv[1:]))
"""


def main(argv=None):
    """Runs the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=1000)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        return 1 if compared(pathlib.Path(work), args.evaluations) else 0


def compared(work, evaluations):
    """Evaluates a run below `work`; returns how many of the evaluations belong to no save."""
    aside = work / "aside"
    aside.mkdir()
    command = [sys.executable, "-c", KEEPING, str(aside), *SMALL, "--epoch", "5000"]
    command += ["--save_every", "0", *folders(work)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    where = str(work / "weights")
    try:
        wait_for(lambda: weights_file.saved_steps(where)[-1:] > [0], process)
        seen = [evaluated(where) for _ in range(evaluations)]
        assert process.poll() is None, "the run ended before the evaluations"
    finally:
        process.kill()
        process.wait()
    of_saves = {}
    for path in [*aside.iterdir(), *(work / "weights" / weights_file.CHECKPOINTS).glob("*.keras")]:
        step, figures = evaluated(str(path))
        of_saves[step] = figures
    wrong = sum(of_saves.get(step) != figures for step, figures in seen)
    steps = len({step for step, _ in seen})
    print(f"{evaluations} evaluations of {steps} of {len(of_saves)} saves, {wrong} wrong")
    return wrong


def evaluated(where):
    """The step and the metrics of the newest save."""
    vae, record = weights.load(where)
    images = data.to_float(IMAGES)
    # Eager, as a graph would be traced for each model.
    mu, log_var = vae.encode(images)
    terms = model.loss_terms(images, mu, log_var, vae.decode(mu))
    return record.step, {name: term.numpy().mean() for name, term in terms.items()}


if __name__ == "__main__":
    sys.exit(main())
