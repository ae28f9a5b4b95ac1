"""Replays the system calls of a run up to every moment at which the power might have failed.

    python -m tests.slow.power_cut                  # every state; needs strace; some minutes
    python -m tests.slow.power_cut --most 8         # only a few of them

A small run is recorded by strace. For each prefix of its calls, two disks are made: one with only
the contents and names that were fsynced (`strict`), and one where all names survive, but contents
that were not fsynced do not (`names`). On each, a reader must find a valid save or none, every
point of the curves up to that save's step must be there, and the same command must end with the
same run. Prints a line for each disk that differs from the one before; the exit code is 1 if a run
was lost.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from support.errors import UserError
from support.storage import weights
from tests.helpers import ROOT, SMALL, folders, lost_by_rerun, points

CALLS = "openat,write,pwrite64,lseek,ftruncate,rename,renameat,renameat2,unlink,unlinkat,rmdir"
CALLS += ",mkdir,mkdirat,fsync,fdatasync,close"
ARGV = ("--epoch", "2", "--save_every", "0")
LINE = re.compile(r"(\d+\.\d+) (\w+)\((.*)\)\s+= (-?\d+)(?:<(.*)>)?")


def main(argv=None):
    """Records, replays and judges; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=0, help="disks to judge; 0: all")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        lost = replay(pathlib.Path(work), args.most)
    return 1 if lost else 0


def replay(work, most=0):
    """Judges the disks of a run recorded below `work`; returns how many were lost.

    Args:
        most: how many disks to judge, spread over the run; 0: all.
    """
    whole = work / "run"
    calls = recorded(work, whole)
    disks = list(states(calls, str(whole)))
    chosen = range(len(disks))
    if most:
        chosen = sorted({round(i * (len(disks) - 1) / (most - 1)) for i in range(most)})
    lost = 0
    for index in chosen:
        kind, after, disk = disks[index]
        place = work / f"disk{index}"
        complaint = judged(place, whole, disk)
        lost += bool(complaint)
        print(f"{index + 1}/{len(disks)} {kind} after {after}: {complaint or 'survived'}")
    print(f"{len(chosen)} disks, {lost} lost")
    return lost


def recorded(work, whole):
    """Runs train.py under strace; returns the calls of all its threads in order."""
    command = ["strace", "-f", "-ff", "--seccomp-bpf", "-ttt", "-y", "-xx", "-s", "50000000"]
    command += ["-e", f"trace={CALLS}", "-o", str(work / "calls"), sys.executable]
    command += [os.path.join(ROOT, "train.py"), *SMALL, *ARGV, *folders(whole)]
    whole.mkdir()
    # Otherwise joblib starts `lscpu`, whose file descriptors would be taken for the script's own.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=environment)
    lines = []
    for log in work.glob("calls.*"):
        with open(log, encoding="ascii") as file:
            lines += [match.groups() for match in map(LINE.match, file) if match]
    return sorted(lines, key=lambda line: float(line[0]))


def decoded(text):
    """The bytes of a hexadecimal string of strace."""
    return bytes.fromhex(text.replace("\\x", ""))


class Disk:
    """Files below one folder: what the system shows, and what a power cut would leave."""

    def __init__(self, base):
        self.base = base
        # Path -> inode (a dict of two contents), or None for a folder.
        self.shown, self.kept = {base: None}, {base: None}
        self.open = {}

    def path(self, arguments):
        """The path in the first arguments of a call, or None if it is outside of `base`."""
        folder, name = re.match(r'(?:[\w-]+<([^>]*)>, )?"([^"]*)"', arguments).groups()
        name = decoded(name).decode()
        if not name.startswith("/"):
            name = os.path.join(decoded(folder or "").decode(), name)
        return name if name.startswith(self.base) else None

    def apply(self, call, arguments, result, result_path):
        """Applies one call; returns whether it may have changed what a power cut would leave."""
        if call == "openat":
            return self.apply_open(decoded(result_path).decode(), arguments, int(result))
        if call in ("mkdir", "mkdirat", "unlink", "unlinkat", "rmdir"):
            path = self.path(arguments)
            if path and call.startswith("mkdir"):
                self.shown[path] = None
            elif path:
                del self.shown[path]
            return bool(path)
        if call.startswith("rename"):
            first, second = (decoded(name).decode() for name in re.findall(r'"([^"]*)"', arguments))
            if first.startswith(self.base):
                self.shown[second] = self.shown.pop(first)
            return first.startswith(self.base)
        number = int(re.match(r"\d+", arguments)[0])
        if number not in self.open:
            return False
        if call in ("fsync", "fdatasync"):
            self.apply_sync(number)
            return True
        self.apply_write(call, arguments, int(result), number)
        return False

    def apply_open(self, path, arguments, number):
        """Opens a file; returns whether it is a new one."""
        if not path.startswith(self.base):
            self.open.pop(number, None)
            return False
        new = path not in self.shown
        if new:
            self.shown[path] = {"now": bytearray(), "synced": b""}
        elif "O_TRUNC" in arguments:
            self.shown[path]["now"] = bytearray()
        self.open[number] = [path, self.shown[path], 0]
        return new

    def apply_write(self, call, arguments, result, number):
        """Changes the content of an open file, or its position, or closes it."""
        _, inode, offset = self.open[number]
        if call == "close":
            del self.open[number]
        elif call == "lseek":
            self.open[number][2] = result
        elif call == "ftruncate":
            length = int(arguments.rpartition(",")[2])
            inode["now"] = inode["now"][:length].ljust(length, b"\0")
        else:
            content = decoded(re.search(r'"([^"]*)"', arguments)[1])[:result]
            at = offset if call == "write" else int(arguments.rpartition(",")[2])
            missing = at - len(inode["now"])
            inode["now"][at : at + len(content)] = b"\0" * max(0, missing) + content
            if call == "write":
                self.open[number][2] = at + len(content)

    def apply_sync(self, number):
        """Syncs the content of a file, or the names in a folder, to disk."""
        path, inode, _ = self.open[number]
        if inode is not None:
            inode["synced"] = bytes(inode["now"])
            return
        for names in (self.kept, self.shown):
            for name in [name for name in names if os.path.dirname(name) == path]:
                if name in self.shown:
                    self.kept[name] = self.shown[name]
                else:
                    self.kept.pop(name)

    def left(self, names):
        """What a power cut leaves: path -> content, or None for a folder."""
        found = {}
        for path, inode in sorted(names.items()):
            reachable = path == self.base or os.path.dirname(path) in found
            if reachable:
                found[path] = inode and inode["synced"]
        return found


def states(calls, base):
    """Yields (kind, call, disk) for each disk that differs from the previous one of its kind."""
    disk, before = Disk(base), {}
    for _, call, arguments, result, result_path in calls:
        if int(result) < 0 or not disk.apply(call, arguments, result, result_path):
            continue
        for kind, names in (("strict", disk.kept), ("names", disk.shown)):
            left = disk.left(names)
            if left != before.get(kind):
                before[kind] = left
                yield kind, call, left


def judged(place, whole, disk):
    """Writes a disk to `place`, reads it and resumes the run; returns what was lost, or ''."""
    base = str(whole)
    for path, content in disk.items():
        target = pathlib.Path(str(place) + path[len(base) :])
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.write_bytes(content)
    place.mkdir(exist_ok=True)
    try:
        record = weights.read_record(str(place / "weights"))
    except UserError as error:
        return f"no good save: {error}"
    for part in ("train", "val") if record else ():
        expected = points(whole / "log" / part)
        found = points(place / "log" / part) if (place / "log" / part).is_dir() else {}
        for tag, curve in expected.items():
            due = [point for point in curve if point[0] <= record.step]
            if [point for point in found.get(tag, []) if point[0] <= record.step] != due:
                return f"points of {part} {tag} up to step {record.step} are missing"
    return lost_by_rerun(place, whole, *ARGV)


if __name__ == "__main__":
    sys.exit(main())
