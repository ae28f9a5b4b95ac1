"""Lists the members of zip and tar archives as entries, which are read without extracting them."""

from __future__ import annotations

import bz2
import contextlib
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from typing import IO, cast

from support.datasets.entries import (
    MOST_BYTES,
    MOST_BYTES_IN_MEMORY,
    Entry,
    Listing,
    is_stray,
    reading,
)
from support.errors import UserError
from support.text import printable

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
BZIP2 = b"BZh"
MOST_MEMBERS = 400_000
# The most bytes that Python's readers may request at once.
MOST_BYTES_AT_ONCE = 64_000_000
# The most bytes that an archive may unpack to if it is compressed, and so unpacked, as a whole.
MOST_BYTES_UNPACKED = 1_000_000_000
PIECE_BYTES = 1 << 20


class _SmallReads(io.BufferedReader):
    """A file that refuses to be read in huge pieces.

    `zipfile` and `tarfile` read each table in one piece, whatever length the archive states for it.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = MOST_BYTES_AT_ONCE + 1
        content = super().read(min(size, MOST_BYTES_AT_ONCE + 1))
        if len(content) > MOST_BYTES_AT_ONCE:
            raise ValueError("its list of members is too long")
        return content


def is_zip(entry: Entry) -> bool:
    """Whether this is a zip file, whatever it contains."""
    return entry.head.startswith(ZIP)


def is_tar(entry: Entry) -> bool:
    """Whether this is a tar archive, plain or compressed by gzip or bzip2."""
    if entry.head.startswith(BZIP2):
        return entry.name.lower().endswith((".tbz", ".tbz2", ".tar.bz2"))
    return entry.head[257:262] == b"ustar"


def zip_names(entry: Entry) -> list[str]:
    """Returns the names of a zip's members."""
    if entry.zip_names is None:
        with contextlib.ExitStack() as stack:
            entry.zip_names = _open_zip(entry, stack).namelist()
    return entry.zip_names


def zip_members(entry: Entry, stack: contextlib.ExitStack, container: str = "") -> Listing:
    """Returns the files in a zip.

    Args:
        entry: the zip.
        stack: closes the archive when its entries are no longer needed.
        container: the `Entry.container` of these files.

    Raises:
        UserError: it is damaged, encrypted, compressed by an unsupported method, or too large.
    """
    archive = _open_zip(entry, stack)
    found, skipped = [], []
    for member in archive.infolist():
        if member.is_dir():
            continue
        name = member.filename.lstrip("/")
        if any(is_stray(part) for part in name.split("/")):
            skipped.append(name)
            continue
        where = f"{entry.where}: {name}"
        if member.flag_bits & 1:
            raise UserError(
                f"{printable(where)} is encrypted: unpack the archive and give the path of the "
                "folder"
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(
                f"{printable(where)} is compressed by an unsupported method (number "
                f"{member.compress_type}): unpack the archive and give the path of the folder"
            )
        found.append(Entry(name, where, member.file_size, _zip_opener(archive, member), container))
    return Listing(found, skipped)


def tar_members(entry: Entry, stack: contextlib.ExitStack) -> Listing:
    """Returns the files in a tar archive, plain or compressed, as `zip_members` does for a zip."""
    found: list[Entry] = []
    skipped: list[str] = []
    total = 0
    with reading(entry.where):
        small = stack.enter_context(_SmallReads(cast(io.RawIOBase, _seekable(entry, stack))))
        archive = stack.enter_context(tarfile.TarFile(fileobj=small))
        for member in archive:
            name = member.name.lstrip("/")
            total += member.size
            if total > MOST_BYTES or len(found) + len(skipped) > MOST_MEMBERS:
                raise UserError(
                    f"{entry.where} unpacks to more than {MOST_BYTES // 10**9} GB or "
                    f"{MOST_MEMBERS:,} files: unpack it and give the path of the folder"
                )
            if not member.isreg() or any(is_stray(part) for part in name.split("/")):
                if not member.isdir():
                    skipped.append(name)
                continue
            where = f"{entry.where}: {name}"
            found.append(Entry(name, where, member.size, _tar_opener(archive, member)))
    return Listing(found, skipped)


def _open_zip(entry: Entry, stack: contextlib.ExitStack) -> zipfile.ZipFile:
    with reading(entry.where):
        small = stack.enter_context(_SmallReads(cast(io.RawIOBase, _seekable(entry, stack))))
        archive = stack.enter_context(zipfile.ZipFile(small))
        if len(archive.infolist()) > MOST_MEMBERS:
            raise UserError(
                f"{entry.where} holds more than {MOST_MEMBERS:,} files: "
                "unpack it and give the path of the folder"
            )
        return archive


def _seekable(entry: Entry, stack: contextlib.ExitStack) -> IO[bytes]:
    """Opens an archive so that its members can be read in any order.

    An uncompressed archive on disk is opened as it is; others are unpacked into memory, or, if they
    are large, into an anonymous temporary file.

    Raises:
        UserError: it unpacks to more than `MOST_BYTES_UNPACKED`.
    """
    if not entry.gzipped and not entry.head.startswith(BZIP2):
        file = stack.enter_context(entry.open_stored())
        if isinstance(file, io.BufferedReader) and file.seekable():
            return file
    source: IO[bytes] = stack.enter_context(entry.open())
    if entry.head.startswith(BZIP2):
        source = stack.enter_context(bz2.BZ2File(source))
    spooled = tempfile.SpooledTemporaryFile(MOST_BYTES_IN_MEMORY)  # noqa: SIM115, the stack closes it
    unpacked = stack.enter_context(spooled)
    total = 0
    while piece := source.read(PIECE_BYTES):
        unpacked.write(piece)
        total += len(piece)
        if total > MOST_BYTES_UNPACKED:
            raise UserError(
                f"{entry.where} unpacks to more than {MOST_BYTES_UNPACKED // 10**9} GB: "
                "unpack it and give the path of the folder"
            )
    unpacked.seek(0)
    return cast(IO[bytes], unpacked)


def _zip_opener(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(member)


def _tar_opener(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        file = archive.extractfile(member)
        if file is None:
            raise tarfile.ReadError("not a regular file")
        return file

    return opened
