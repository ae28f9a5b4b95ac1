"""What other systems lack, by reading the sources: no such system is at hand."""

import ast
import os

import pytest

from tests.helpers import ROOT
from tests.test_layout import SOURCES, parsed

# Modules that Windows has not.
UNIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
# Names of `os` and `signal` whose documentation says "Availability: Unix", as far as anybody might
# use them here.
UNIX_NAMES = {
    "os": {
        "O_CLOEXEC",
        "O_DIRECTORY",
        "O_DSYNC",
        "O_NOCTTY",
        "O_NOFOLLOW",
        "O_NONBLOCK",
        "O_SYNC",
        "WEXITSTATUS",
        "WIFEXITED",
        "WIFSIGNALED",
        "WNOHANG",
        "WTERMSIG",
        "chown",
        "chroot",
        "confstr",
        "ctermid",
        "fchdir",
        "fchown",
        "fdatasync",
        "fork",
        "forkpty",
        "fpathconf",
        "fstatvfs",
        "getegid",
        "geteuid",
        "getgid",
        "getgroups",
        "getloadavg",
        "getpgid",
        "getpgrp",
        "getpriority",
        "getresuid",
        "getsid",
        "getuid",
        "killpg",
        "lchown",
        "lockf",
        "mkfifo",
        "mknod",
        "nice",
        "openpty",
        "pathconf",
        "pidfd_open",
        "posix_fadvise",
        "posix_fallocate",
        "posix_spawn",
        "pread",
        "pwrite",
        "readv",
        "register_at_fork",
        "sched_getaffinity",
        "sched_setaffinity",
        "sendfile",
        "setegid",
        "seteuid",
        "setgid",
        "setpgid",
        "setpriority",
        "setsid",
        "setuid",
        "statvfs",
        "sync",
        "sysconf",
        "tcgetpgrp",
        "ttyname",
        "uname",
        "wait",
        "wait3",
        "wait4",
        "writev",
    },
    "signal": {
        "SIGALRM",
        "SIGCHLD",
        "SIGCONT",
        "SIGHUP",
        "SIGKILL",
        "SIGPIPE",
        "SIGQUIT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGUSR1",
        "SIGUSR2",
        "SIGWINCH",
        "alarm",
        "getitimer",
        "pause",
        "pthread_kill",
        "pthread_sigmask",
        "setitimer",
        "siginterrupt",
        "sigpending",
        "sigtimedwait",
        "sigwait",
    },
    "time": {"clock_gettime", "clock_settime", "pthread_getcpuclockid", "tzset"},
}


def is_guarded(node):
    """Whether an `if` asks for the system, or for the name, before its body runs."""
    return isinstance(node, ast.If) and any(
        word in ast.unparse(node.test) for word in ("sys.platform", "hasattr(")
    )


def unix_only(tree):
    """What of a source exists on Unix alone and is not guarded, with its lines."""
    found, nodes = [], [tree]
    while nodes:
        node = nodes.pop()
        if is_guarded(node):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names} & UNIX_MODULES
        elif isinstance(node, ast.ImportFrom):
            names = {node.module} & UNIX_MODULES
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = {node.attr} & UNIX_NAMES.get(node.value.id, set())
        else:
            continue
        found += [f"line {node.lineno}: {name}" for name in names]
    return found


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_module_uses_what_windows_has_not(module):
    assert not unix_only(parsed(module))


@pytest.mark.parametrize(
    "source, count",
    [
        ("import os\nos.uname()", 1),
        ("import fcntl", 1),
        ("import signal\nsignal.SIGKILL", 1),
        ("import os\nif hasattr(os, 'uname'):\n    os.uname()\nelse:\n    os.fork()", 1),
        ("import os, sys\nif sys.platform == 'darwin':\n    import fcntl", 0),
        ("import os\ngetattr(os, 'O_NONBLOCK', 0)\nos.replace('a', 'b')", 0),
    ],
)
def test_the_search_finds_them(source, count):
    assert len(unix_only(ast.parse(source))) == count


def test_no_file_has_a_name_that_another_system_refuses():
    """Windows: reserved names and characters; it and macOS: names that differ in case alone."""
    reserved = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10))}
    reserved |= {f"lpt{i}" for i in range(1, 10)}
    seen = {}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in (".git", ".venv")]
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            assert name.split(".")[0].lower() not in reserved, path
            assert not set(name) & set('<>:"|?*\\') and not name.endswith((" ", ".")), path
            assert seen.setdefault(path.lower(), path) == path
