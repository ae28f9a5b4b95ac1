"""Gives access to the files of a data set, whether in a folder, in an archive, or in memory.

    for entry in entries.in_folder("mnist_folder").entries:
        entry.name, entry.head               # "raw/train-images-idx3-ubyte", its first bytes
        with entry.open() as file: ...       # decompressed if it is gzipped

No file is trusted: only regular files are opened, cycles of links are not followed, and the numbers
of files and bytes that are read are limited.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, cast

from support import files
from support.errors import UserError
from support.text import printable

HEAD_BYTES = 1024
MOST_FILES = 1_100_000
MOST_DEPTH = 8
# The limits for one file after decompression, and for one that is held in memory.
MOST_BYTES = 4_000_000_000
MOST_BYTES_IN_MEMORY = 200_000_000
FOLDER, FILE = "folder", "file"
GZIP = b"\x1f\x8b\x08"
# What file managers leave in folders; names that begin with a dot are skipped, too.
STRAY_NAMES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}


class Entry:
    """One file of a data set.

    Attributes:
        name: its path below the folder or in the archive, with slashes.
        where: its path for messages, safe to print.
        size: its size in bytes, as it is stored.
        container: for a member of an `.npz`, the name of that file; else empty.
        open_stored: a function that opens the file as it is stored.
        zip_names: the names of a zip's members, once they are known.
    """

    def __init__(
        self,
        name: str,
        where: str,
        size: int,
        open_stored: Callable[[], IO[bytes]],
        container: str = "",
    ) -> None:
        self.name = name
        self.where = printable(where)
        self.size = size
        self.container = container
        self.open_stored = open_stored
        self.zip_names: list[str] | None = None

    @functools.cached_property
    def stored_head(self) -> bytes:
        """The first bytes as they are stored."""
        with reading(self.where), self.open_stored() as file:
            return file.read(HEAD_BYTES)

    @property
    def gzipped(self) -> bool:
        """Whether the content is gzipped, whatever the file's extension."""
        return self.stored_head.startswith(GZIP)

    @functools.cached_property
    def head(self) -> bytes:
        """The first bytes of the content; empty if the gzip data is damaged."""
        if not self.gzipped:
            return self.stored_head
        try:
            return zlib.decompressobj(wbits=31).decompress(self.stored_head, HEAD_BYTES)
        except zlib.error:
            return b""

    def stored(self, most: int) -> bytes:
        """Returns the file as it is stored.

        Raises:
            UserError: it cannot be read, or has more than `most` bytes.
        """
        if self.size <= HEAD_BYTES:
            # It was read as a whole to recognize its format.
            return self.stored_head
        with reading(self.where), self.open_stored() as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise UserError(f"{self.where} has more than {most:,} bytes: use a smaller file")
        return content

    def open(self) -> IO[bytes]:
        """Opens the content for reading, decompressed if it is gzipped."""
        file = self.open_stored()
        if self.gzipped:
            return cast(IO[bytes], gzip.open(file))
        return file


class Listing(NamedTuple):
    """Entries, and the names of files that were skipped."""

    entries: list[Entry]
    skipped: list[str]


def listed(names: list[str], most: int = 4) -> str:
    """Returns the first names separated by commas, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:most])
    if len(names) > most:
        shown += f" and {len(names) - most:,} more"
    return shown


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turns whatever Python's readers raise inside the block into a `UserError`.

    Args:
        what: the file, for messages.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{what} does not exist: check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = str(error)[:150] or "it is truncated"
        raise UserError(f"{what} is damaged ({reason}): download or copy it again") from error
    except MemoryError as error:
        raise UserError(f"{what} needs more memory than there is: use fewer images") from error
    except OSError as error:
        reason = error.strerror or str(error)[:150]
        raise UserError(
            f"{what} cannot be read ({reason}): check the file and its permissions"
        ) from error
    except files.DAMAGE as error:
        reason = printable(str(error)[:150]) or type(error).__name__
        raise UserError(
            f"{what} cannot be read ({reason}): save or download it again; unpack it if it is an "
            "archive"
        ) from error


def in_memory(name: str, content: bytes) -> Entry:
    """Returns an entry for bytes in memory."""
    return Entry(name, name, len(content), lambda: io.BytesIO(content))


def of_file(path: str, name: str = "") -> Entry:
    """Returns an entry for one file on disk."""
    size = os.stat(path).st_size
    return Entry(name or os.path.basename(path), path, size, lambda: files.open_regular(path))


def is_stray(name: str) -> bool:
    """Whether a file or folder with this name is hidden or was left by a file manager."""
    hidden = name.startswith(".") and name not in (".", "..")
    return hidden or name.lower() in STRAY_NAMES


def in_folder(folder: str, depth: int = MOST_DEPTH) -> Listing:
    """Returns the entries below a folder, level by level, sorted by name within each folder.

    Args:
        folder: the path of the folder.
        depth: how many levels of folders to search.

    Raises:
        UserError: the folder cannot be read, or holds too many files.
    """
    entries: list[Entry] = []
    skipped: list[str] = []
    level = [(folder, "")]
    visited: set[tuple[int, int]] = set()
    for _ in range(depth):
        below: list[tuple[str, str]] = []
        for path, prefix in level:
            if _seen(path, visited):
                continue
            for item in _items(path, required=path == folder):
                name = prefix + item.name
                kind = _kind(item)
                if kind == FOLDER:
                    below.append((item.path, f"{name}/"))
                elif kind == FILE:
                    entries.append(_of_item(item, name))
                else:
                    skipped.append(name)
                if len(entries) + len(skipped) + len(below) > MOST_FILES:
                    raise UserError(
                        f"{printable(folder)} holds more than {MOST_FILES:,} files: "
                        "give the path of the folder that holds the images"
                    )
        level = below
    return Listing(entries, skipped)


def _items(path: str, required: bool) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as items:
            found = []
            for item in items:
                found.append(item)
                if len(found) > MOST_FILES:
                    break
    except OSError as error:
        if required:
            reason = error.strerror or str(error)
            raise UserError(
                f"{printable(path)} cannot be read ({reason}): check the folder and its permissions"
            ) from error
        return []
    return sorted(found, key=lambda item: item.name)


def _kind(item: os.DirEntry[str]) -> str:
    """Returns whether an item is a `FOLDER`, a `FILE`, or neither (an empty string)."""
    if is_stray(item.name):
        return ""
    try:
        if item.is_dir():
            return FOLDER
        if item.is_file():
            return FILE
    except OSError:
        # Such as a link to itself.
        pass
    return ""


def _of_item(item: os.DirEntry[str], name: str) -> Entry:
    path = item.path
    return Entry(name, path, item.stat().st_size, lambda: files.open_regular(path))


def _seen(path: str, visited: set[tuple[int, int]]) -> bool:
    """Whether a folder was visited before, such as through another link; else marks it."""
    try:
        status = os.stat(path)
    except OSError:
        return True
    identity = status.st_dev, status.st_ino
    if identity in visited:
        return True
    visited.add(identity)
    return False
