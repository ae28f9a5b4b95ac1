"""Kills a run before each call that changes the disk, and at random moments, and continues it.

    python -m tests.slow.kills --kills 200                      # half an hour
    python -m tests.slow.kills --kills 50 --signal SIGTERM      # only at random moments

The calls that replace, remove, create or sync a file or folder are counted. SIGKILL comes just
before each of them in turn, in a new run each time, and then at random moments. The same command
must then continue or start the run, and end with the same weights, record and curves, without
leftovers. With another signal, the run must finish, or end with the signal's exit code (130 or 143)
and say so in its last line. Prints a line per kill and a total; the exit code is 1 if a run was
lost.
"""

import argparse
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from tests.helpers import ROOT, SMALL, folders, last_line, lost_by_rerun

ARGV = ("--epoch", "2", "--save_every", "0")
# Runs train.py, and kills it before the call whose number is the first argument.
KILLED = """
import os, signal, sys
moment, count = int(sys.argv.pop(1)), 0
def counted(name):
    call = getattr(os, name)
    def wrapped(*args, **kwargs):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    setattr(os, name, wrapped)
for name in ("replace", "remove", "unlink", "mkdir", "rmdir", "fsync"):
    counted(name)
import train
code = train.main(sys.argv[1:])
print(count)
sys.exit(code)
"""


def main(argv=None):
    """Runs the soak; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--signal", choices=("SIGKILL", "SIGTERM", "SIGINT"), default="SIGKILL")
    args = parser.parse_args(argv)
    signum = signal.Signals[args.signal]
    with tempfile.TemporaryDirectory() as work:
        return 1 if soak(pathlib.Path(work), args.kills, args.seed, signum=signum) else 0


def soak(work, kills, seed=0, most_chosen=None, signum=signal.SIGKILL):
    """Kills `kills` runs below `work`; returns how many were lost.

    Args:
        most_chosen: about how many of the calls to kill at, spread over the run; None: all calls.
        signum: SIGKILL, or a signal that comes only at random moments.
    """
    started = time.monotonic()
    whole = run(0, work / "whole")
    seconds, calls = time.monotonic() - started, int(last_line(whole.stdout))
    chosen = list(range(1, calls + 1)) if signum == signal.SIGKILL else []
    if most_chosen:
        chosen = chosen[:: -(-calls // most_chosen)]
    draw, lost, died = random.Random(seed), 0, 0
    for number in range(kills):
        folder = work / f"killed{number}"
        if number < len(chosen):
            what, ended = f"before call {chosen[number]}", run(chosen[number], folder)
        else:
            moment = draw.uniform(0, seconds)
            what, ended = f"after {moment:.2f} s", run(0, folder, moment, signum)
        died += ended.returncode != 0
        complaint = said(ended, signum) or judged(folder, work / "whole")
        lost += bool(complaint)
        print(f"kill {number + 1}, {what}: {complaint or 'survived'}", flush=True)
    print(f"{kills} kills, {died} of them in time, {lost} lost")
    return lost


def run(moment, folder, seconds=None, signum=signal.SIGKILL):
    """Runs train.py as a process that is killed at a call, or gets a signal after `seconds`."""
    command = [sys.executable, "-c", KILLED, str(moment), *SMALL, *ARGV, *folders(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    try:
        printed = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signum)
        printed = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, *printed)


def said(ended, signum):
    """Returns what is wrong with the end of a run that got a signal, or ''."""
    code, stderr = ended.returncode, ended.stderr.strip()
    if code == -signal.SIGKILL or (code == 0 and not stderr):
        return ""
    # Python itself ended, before the script had begun.
    if code in (-signum, 1) and "train.main" not in stderr:
        return ""
    ours = last_line(stderr).startswith("train.py: interrupted") and "Traceback" not in stderr
    if code == 128 + signum and ours:
        return ""
    return f"ended with {code}: {stderr}"


def judged(folder, whole):
    """Runs the same command again; returns what was lost, or ''."""
    complaint = lost_by_rerun(folder, whole, *ARGV)
    if complaint:
        return complaint
    left = {path.name for path in (folder / "weights").iterdir()}
    left |= {path.name for path in (folder / "log").iterdir()}
    left -= {"vae.keras", ".weights.lock", ".log.lock", "owner.json", "train", "val"}
    return f"leftovers: {sorted(left)}" if left else ""


if __name__ == "__main__":
    sys.exit(main())
