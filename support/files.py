"""Writes files completely or not at all, safe from power cuts; reads files without trusting them.

    files.write_whole("result/metrics.json", write)      # write(path) fills a private file first
    with files.open_regular("mnist.npz") as file:
        arrays = files.read_npz(file, "mnist.npz", {"x_train": accepts})

`read_array` checks the header of an array before it allocates memory and unpickles nothing. A
header that promises more than the file holds costs no memory.
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import shutil
import stat
import struct
import sys
import tempfile
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from support.errors import UserError

# A function that says whether an array of this shape and type may be read.
Accepts = Callable[[tuple[int, ...], np.dtype], bool]
WRITING = ".writing-"
WRITING_LOCK = "lock"
# How long to wait for a file that another process has open.
PATIENCE_SECONDS = 3.0
# The errors of file systems that cannot sync a folder.
CANNOT_SYNC = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EACCES,
    errno.EPERM,
    errno.EBADF,
    errno.EISDIR,
)
PIECE = 1 << 24
JSON_LIMIT = 1_000_000
# Opening a pipe that nobody writes to would wait for ever; Windows has no such files.
NO_WAITING = getattr(os, "O_NONBLOCK", 0)
# What Python's own readers raise for invalid files.
DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    EOFError,
    OSError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def write_whole(
    path: str, write: Callable[[str], Any], before_commit: Callable[[], None] | None = None
) -> Any:
    """Writes a file so that at every moment `path` is either as before or complete on disk.

    A symbolic link at `path` is followed, and a file that is replaced keeps its permissions.

    Args:
        path: the file to create or replace; its folder must exist.
        write: a function that fills the file whose path it is given. That file has the name of
            `path` and is in a private folder beside it, which is removed afterwards with all that
            is left in it.
        before_commit: called when everything is written, just before the file is moved to `path`.

    Returns:
        What `write` returned.

    Raises:
        UserError: `path` exists and is not a regular file.
    """
    folder, name = os.path.split(os.path.realpath(path))
    target = os.path.join(folder, name)
    if os.path.exists(target) and not os.path.isfile(target):
        raise UserError(f"{path} is not a regular file: choose another file name")
    with _private_folder(folder) as private:
        written = os.path.join(private, name)
        result = write(written)
        if os.path.exists(target):
            shutil.copymode(target, written)
        sync_file(written)
        if before_commit:
            before_commit()
        patiently(os.replace, written, target)
        sync_folder(folder)
        return result


@contextlib.contextmanager
def replaced_folder(path: str, before_commit: Callable[[], None]) -> Iterator[str]:
    """Yields an empty folder, which takes the place of `path` if the block ends without an error.

    An earlier folder at `path` is deleted with all that it holds. A symbolic link is followed.
    Unlike `write_whole`, this does not wait for each file to reach the disk, since there may be
    many: after a power cut, some may be empty.

    Args:
        path: the folder to create or replace; the folder above it must exist.
        before_commit: called just before the earlier folder is replaced; it raises an error if that
            folder must not be deleted.
    """
    parent, name = os.path.split(os.path.realpath(path))
    target = os.path.join(parent, name)
    with _private_folder(parent) as private:
        written, earlier = os.path.join(private, name), os.path.join(private, f"earlier-{name}")
        os.mkdir(written)
        yield written
        before_commit()
        try:
            if os.path.isdir(target):
                patiently(os.rename, target, earlier)
            patiently(os.rename, written, target)
        except BaseException:
            if os.path.isdir(earlier) and not os.path.lexists(target):
                os.rename(earlier, target)
            raise
        sync_folder(parent)


def free_bytes(path: str) -> int | None:
    """Returns how many bytes can be written to a folder, which need not exist; None: unknown."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    # Some network file systems say 0 of 0.
    return usage.free if usage.total else None


@contextlib.contextmanager
def _private_folder(folder: str) -> Iterator[str]:
    """Creates a folder for unfinished files, with a lock that shows that its process is alive."""
    import filelock  # takes a fifth of a second, for which --help must not wait

    while True:
        private = tempfile.mkdtemp(prefix=WRITING, dir=folder)
        try:
            lock = filelock.FileLock(os.path.join(private, WRITING_LOCK), blocking=False)
            lock.acquire()
            break
        except FileNotFoundError:
            # Another process swept the folder before it was locked.
            continue
        except (OSError, NotImplementedError):
            # On a file system without locks, `sweep` removes nothing.
            break
    try:
        yield private
    finally:
        lock.release()
        shutil.rmtree(private, ignore_errors=True)


def sweep(folder: str) -> None:
    """Removes the unfinished files that killed processes of this project left in `folder`.

    A living process holds the lock of its folder, and a folder that is not ours has no lock file.
    """
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        private = os.path.join(folder, name)
        if not name.startswith(WRITING) or os.path.islink(private) or not os.path.isdir(private):
            continue
        if os.path.isfile(os.path.join(private, WRITING_LOCK)):
            _remove_abandoned(private)
        else:
            # Its process was killed before it made the lock; a folder with content is not ours.
            with contextlib.suppress(OSError):
                os.rmdir(private)


def _remove_abandoned(private: str) -> None:
    """Removes a private folder unless a living process holds its lock."""
    import filelock

    lock = filelock.FileLock(os.path.join(private, WRITING_LOCK), blocking=False)
    try:
        lock.acquire()
    except (filelock.Timeout, OSError, NotImplementedError):
        return
    lock.release()
    shutil.rmtree(private, ignore_errors=True)


def patiently(action: Callable[..., None], *paths: str) -> None:
    """Replaces or removes a file; while another process has it open, tries again for some seconds.

    On Windows, a file that a virus scanner, a sync client or a reader has open can be neither
    replaced nor removed.

    Raises:
        PermissionError: another process still has it open, or it may not be changed at all.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            action(*paths)
            return
        except PermissionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def sync_file(path: str) -> None:
    """Waits until the content of a file would survive a power cut."""
    # Windows flushes only files that are open for writing.
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """Waits until what was written to a descriptor would survive a power cut."""
    if sys.platform == "darwin":
        import fcntl

        # On macOS, fsync leaves data in the disk's own cache.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(path: str) -> None:
    """Waits until the names in a folder would survive a power cut, if that is possible.

    Windows cannot sync a folder, nor can some network and shared file systems: there, a notice says
    once what that means.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
        _say_once(
            "Notice: this file system cannot sync folders to disk: after a power cut, the newest "
            "save may be missing, and the run then continues from the one before it."
        )


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def write_text(path: str, text: str) -> None:
    """Writes text to `path`, completely or not at all."""
    write_whole(path, lambda written: pathlib.Path(written).write_text(text, encoding="utf-8"))


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Writes `content` as JSON to `path`, completely or not at all; NaN is refused."""
    write_text(path, as_json(content))


def as_json(content: Mapping[str, Any]) -> str:
    """Returns `content` as JSON text that a person can read; NaN is refused."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read_json(file: IO[bytes], what: str) -> dict[str, Any]:
    """Returns the JSON object in an open binary file of at most 1 MB.

    Args:
        file: the file.
        what: its name, for messages.

    Raises:
        UserError: the file is larger, or is not a JSON object.
    """
    with damage(what):
        content = file.read(JSON_LIMIT + 1)
        if len(content) > JSON_LIMIT:
            raise ValueError(f"it has more than {JSON_LIMIT:,} bytes")
        found = json.loads(content)
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
        return found


def make_folder(path: str) -> None:
    """Creates the folder `path` and those above it, if need be, so that they survive a power cut.

    Raises:
        FileNotFoundError: nothing above it exists, such as on a missing drive.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent == path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    make_folder(parent)
    try:
        os.mkdir(path)
    except FileExistsError:
        # Another process created it first, or a file has that name.
        if not os.path.isdir(path):
            raise
    sync_folder(parent)


def writable_folder(path: str) -> None:
    """Creates the folder `path` if need be, and checks that files can be written to it.

    Raises:
        UserError: it is not a folder, or cannot be written to.
    """
    with disk_errors(path):
        make_folder(os.path.abspath(path))
        with tempfile.TemporaryFile(dir=path):
            pass


@contextlib.contextmanager
def disk_errors(what: str, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns a failed write inside the block into a `UserError`.

    Args:
        what: the file or folder that is written to.
        also: exceptions that mean a failed write, besides OSError.
    """
    failures: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except failures as error:
        # By number if there is one: h5py has a paragraph of text where others have a few words.
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error)
        advice = "free some space or choose another folder; what was saved before is intact"
        raise UserError(f"{what} cannot be written ({reason[:200]}): {advice}") from error


@contextlib.contextmanager
def damage(what: str) -> Iterator[None]:
    """Turns whatever Python's readers raise for a damaged file into a `UserError`."""
    try:
        yield
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(
            f"{what} is damaged or not what it should be ({reason[:200]}): restore it from a copy"
        ) from error


def open_regular(path: str) -> IO[bytes]:
    """Opens a file for reading in binary mode, without waiting in case it is a pipe.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is not a regular file, or cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_WAITING | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except (OSError, ValueError) as error:
        # Windows does not open folders at all.
        reason = getattr(error, "strerror", None) or error
        problem = "is not a regular file" if os.path.isdir(path) else f"cannot be read ({reason})"
        raise UserError(f"{path} {problem}: choose another file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is not a regular file: choose another file")
    return open(descriptor, "rb")


def read_npz(
    file: IO[bytes], what: str, accepted: Mapping[str, Accepts], compressed: bool = False
) -> dict[str, NDArray]:
    """Reads the arrays of an `.npz`, which must hold no others.

    Args:
        file: the open file, binary and seekable.
        what: its name, for messages.
        accepted: dict of name -> function of (shape, dtype) that says whether such an array may
            be read.
        compressed: whether arrays may be deflated; otherwise they must be stored uncompressed.

    Returns:
        dict of name -> array.

    Raises:
        UserError: an array is missing, surplus, damaged or not accepted.
    """
    with damage(what), zipfile.ZipFile(file) as archive:
        found = require_plain(archive, compressed)
        if sorted(found) != sorted(f"{key}.npy" for key in accepted):
            raise ValueError(f"it holds {found[:9]}, expected {list(accepted)}")
        arrays = {}
        for key, accepts in accepted.items():
            with archive.open(f"{key}.npy") as member:
                arrays[key] = read_array(member, f"{what}: the array {key}", accepts)
        return arrays


def require_plain(archive: zipfile.ZipFile, compressed: bool = False) -> list[str]:
    """Returns the names of a ZipFile's members, in order.

    Raises:
        ValueError: a member is encrypted, or compressed although it must not be, or compressed by
            another method than deflate.
    """
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if compressed else (zipfile.ZIP_STORED,)
    for member in archive.infolist():
        sizes_agree = compressed or member.file_size == member.compress_size
        if member.compress_type not in methods or member.flag_bits & 1 or not sizes_agree:
            raise ValueError(f"{member.filename} is compressed or encrypted")
    return archive.namelist()


def read_array(file: IO[bytes], what: str, accepts: Accepts) -> NDArray:
    """Reads one `.npy` from an open file, to its end.

    Args:
        file: the file.
        what: the name of the array, for messages.
        accepts: a function of (shape, dtype) that says whether such an array may be read.

    Raises:
        UserError: the array is damaged, holds Python objects, or is not accepted.
    """
    with damage(what):
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("its header has another version than 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        # Python's True is an int, too, and an int may be negative: neither belongs in a shape.
        whole = all(type(length) is int and length >= 0 for length in shape)
        if dtype.hasobject or fortran or not whole or not accepts(shape, dtype):
            raise ValueError(f"unexpected shape {shape} or type {dtype}")
    return read_exactly(file, shape, dtype, what)


def read_exactly(file: IO[bytes], shape: Sequence[int], dtype: DTypeLike, what: str) -> NDArray:
    """Reads an array of known shape and type that fills the rest of an open file.

    Raises:
        UserError: the file is shorter or longer than that, or damaged.
    """
    with damage(what):
        # The system allocates memory only as it is filled, so a false shape costs none.
        array = np.empty(shape, dtype)
        content = array.reshape(-1).view(np.uint8).data
        filled = 0
        while filled < len(content):
            count = file.readinto(content[filled : filled + PIECE])  # type: ignore[attr-defined]
            if not count:
                raise ValueError(f"it is truncated, {filled} of {len(content)} bytes")
            filled += count
        # Reading past the end also makes gzip and zip verify their checksums.
        if file.read(1):
            raise ValueError("it is longer than its header says")
        return array
