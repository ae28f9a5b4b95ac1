"""Locks that keep two runs from writing to the same folder, by `filelock`.

A lock is released when its process ends, however it ends; the lock file stays.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

import filelock

from support import files
from support.errors import UserError
from support.text import visible

OUTPUT_LOCK = ".output.lock"
# The errors of network file systems that do not support locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextlib.contextmanager
def output_folder(path: str) -> Iterator[None]:
    """Keeps other processes from writing results to a folder inside the block.

    Otherwise the files of two evaluations into one folder could be mixed: the second one waits.

    Raises:
        UserError: the folder cannot be written to.
    """
    with FolderLocks() as locks:
        locks.acquire(path, OUTPUT_LOCK, wait=True)
        yield


class FolderLocks:
    """Locks on folders, held until `release`."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._inodes: dict[str, int] = {}

    def acquire(self, folder: str, name: str, wait: bool = False) -> None:
        """Creates a folder if necessary, checks that it can be written to, and locks it.

        Args:
            folder: the folder to lock.
            name: the name of the lock file in it.
            wait: whether to wait while another process holds the lock.

        Raises:
            UserError: it cannot be written to, or another process holds its lock.
        """
        files.writable_folder(folder)
        path = os.path.join(folder, name)
        if os.path.islink(path):
            raise UserError(f"{path} is a symbolic link, expected a lock file: remove the link")
        try:
            self._lock(path, wait)
        except filelock.Timeout:
            advice = "wait until it ends, or choose another folder"
            raise UserError(f"{folder} is in use by another run: {advice}") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(
                f"Notice: the file system of {visible(folder)} does not support locks: make sure "
                "that no second run uses this folder.",
                file=sys.stderr,
            )
        if os.path.exists(path):
            self._inodes[path] = os.stat(path).st_ino

    def _lock(self, path: str, wait: bool) -> None:
        try:
            self._held.enter_context(filelock.FileLock(path, blocking=False))
        except filelock.Timeout:
            if not wait:
                raise
            folder = visible(os.path.dirname(path))
            print(f"Waiting for another process that writes to {folder} ...", file=sys.stderr)
            self._held.enter_context(filelock.FileLock(path))

    def require_held(self) -> None:
        """Raises a `UserError` if a locked folder was removed or replaced.

        The lock that is held would then not keep other processes out.
        """
        for path, inode in self._inodes.items():
            if not os.path.exists(path) or os.stat(path).st_ino != inode:
                folder = os.path.dirname(path)
                raise UserError(
                    f"{folder} was removed or replaced while this run used it: start the run again"
                )

    def __enter__(self) -> "FolderLocks":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases all locks."""
        self._held.close()
        self._inodes.clear()
