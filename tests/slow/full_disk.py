"""Fills the disk of a run at random moments, and continues the run once there is space.

    python -m tests.slow.full_disk --disks 100     # needs root, to mount a tmpfs; ten minutes

Each disk is a tmpfs of a random size, which is enough only for a part of a save, an event file or
the final file. train.py must end with one line and exit code 2, and leave a folder that can be
loaded; with more space, the same command must end with the same run. Prints a line per disk and a
total; the exit code is 1 if a run was lost.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import tempfile
from unittest import mock

from support.storage import weights
from support.training import steps
from tests.helpers import last_line, lost_by_rerun, quietly

ARGV = ("--epoch", "2", "--save_every", "0")


def main(argv=None):
    """Runs the soak; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--disks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        return 1 if soak(pathlib.Path(work), args.disks, args.seed) else 0


def soak(work, disks, seed=0):
    """Does runs on `disks` small disks below `work`; returns how many were lost."""
    draw, lost, filled = random.Random(seed), 0, 0
    with mock.patch.object(steps, "most_steps_per_call", lambda *_: 6):
        quietly(work / "whole", *ARGV)
        for number in range(disks):
            disk = work / f"disk{number}"
            disk.mkdir()
            size = draw.randrange(4, 4800)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "x", disk], check=True)
            try:
                code, complaint = on(disk, work / "whole")
            finally:
                subprocess.run(["umount", "-l", disk], check=True)
            filled += code == 2
            lost += bool(complaint)
            print(f"{size} KiB: exit code {code}, {complaint or 'survived'}", flush=True)
    print(f"{disks} disks, {filled} of them too small, {lost} lost")
    return lost


def on(disk, whole):
    """Does a run on a disk, then with more space; returns the first exit code and what was lost."""
    code, printed = quietly(disk, *ARGV)
    if code not in (0, 2) or "Traceback" in printed:
        return code, f"ended with {code}: {printed}"
    if code == 2 and "cannot be written" not in last_line(printed):
        return code, f"says: {last_line(printed)}"
    weights.read_record(str(disk / "weights"))
    subprocess.run(["mount", "-o", "remount,size=30m", disk], check=True)
    return code, lost_by_rerun(disk, whole, *ARGV)


if __name__ == "__main__":
    sys.exit(main())
