"""What Windows does to calls of the operating system, emulated for this project's own code.

    python -m pytest --windows           # the whole suite under the emulation

The rest of the process (TensorFlow, pytest, the tests themselves) sees the system as it is. What
is not emulated: drives, letter case, forbidden names, console encodings, and signals.
"""

import errno
import os
import stat
import sys

from tests.helpers import ROOT

# Names that Python has on no Windows.
ABSENT = (
    "O_NONBLOCK",
    "O_DIRECTORY",
    "geteuid",
    "getuid",
    "mkfifo",
    "sched_getaffinity",
    "seteuid",
    "uname",
    "wait4",
)
PROJECT = tuple(
    os.path.join(ROOT, name)
    for name in ("support", "train.py", "eval.py", "eval_genresult.py", "data.py", "model.py")
)


def from_project():
    """Whether the function that calls the emulated one belongs to the project."""
    return sys._getframe(2).f_code.co_filename.startswith(PROJECT)


def emulate(monkeypatch):
    """Lets the project meet a Windows until the fixture `monkeypatch` ends."""
    _hide_absent_names(monkeypatch)
    _refuse_to_open_folders(monkeypatch)
    _sync_only_what_is_open_for_writing(monkeypatch)
    _refuse_to_change_open_files(monkeypatch)


def _hide_absent_names(monkeypatch):
    kept = {name: getattr(os, name) for name in ABSENT if hasattr(os, name)}

    def missing(name):
        if name in kept and not from_project():
            return kept[name]
        raise AttributeError(f"module 'os' has no attribute {name!r}")

    for name in kept:
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(os, "__getattr__", missing, raising=False)


def _refuse_to_open_folders(monkeypatch):
    original = os.open

    def opened(path, flags, *rest, **named):
        if from_project() and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", opened)


def _sync_only_what_is_open_for_writing(monkeypatch):
    import fcntl

    original = os.fsync

    def fsync(file):
        descriptor = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def _refuse_to_change_open_files(monkeypatch):
    replace, remove = os.replace, os.remove

    def replaced(source, target, **named):
        if from_project():
            for path in (source, target):
                _require_closed(path)
        return replace(source, target, **named)

    def removed(path, **named):
        if from_project():
            _require_closed(path)
        return remove(path, **named)

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "remove", removed)


def _require_closed(path):
    """Raises as Windows does where this process has the file open."""
    try:
        wanted = os.stat(path)
    except OSError:
        return
    for name in os.listdir("/proc/self/fd"):
        try:
            found = os.stat(f"/proc/self/fd/{name}")
        except OSError:
            continue
        same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
        if same and stat.S_ISREG(found.st_mode):
            raise PermissionError(errno.EACCES, "The process cannot access the file", path)
