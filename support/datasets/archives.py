"""The members of zip and tar archives as entries, without unpacking anything to disk."""

from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from typing import BinaryIO, cast

from support.datasets.entries import (
    HEAD_BYTES,
    MOST_BYTES,
    MOST_BYTES_IN_MEMORY,
    Entry,
    Listing,
    is_stray,
    printable,
    reading,
)
from support.errors import UserError

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
BZIP2 = b"BZh"
MOST_MEMBERS = 400_000
# The longest piece that Python's readers ask for at once: zip's list of members, tar's long headers.
MOST_BYTES_AT_ONCE = 64_000_000


class _SmallReads(io.BufferedReader):
    """A file that refuses to be read in huge pieces.

    `zipfile` and `tarfile` read tables whose length the archive itself states, each in one piece.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = MOST_BYTES_AT_ONCE + 1
        content = super().read(min(size, MOST_BYTES_AT_ONCE + 1))
        if len(content) > MOST_BYTES_AT_ONCE:
            raise UserError("the archive has a list of members that is too long: unpack it yourself")
        return content


def is_zip(entry: Entry) -> bool:
    """Whether this is a zip file, whatever is in it."""
    return entry.head.startswith(ZIP)


def is_tar(entry: Entry) -> bool:
    """Whether this is a tar archive, plain or compressed by gzip or bzip2."""
    if entry.head.startswith(BZIP2):
        return entry.name.lower().endswith((".tbz", ".tbz2", ".tar.bz2"))
    return entry.head[257:262] == b"ustar"


def zip_names(entry: Entry) -> list[str]:
    """Returns the names of a zip's members."""
    with contextlib.ExitStack() as stack:
        return _open_zip(entry, stack).namelist()


def zip_members(entry: Entry, stack: contextlib.ExitStack, container: str = "") -> Listing:
    """Returns the files in a zip.

    Args:
        stack: closes the archive, when its entries are no longer read.
        container: what the entries say they are in.

    Raises:
        UserError: it is damaged, encrypted, compressed in an unusual way, or too large.
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
            raise UserError(f"{printable(where)} is encrypted: unpack the archive")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            method = zipfile.compressor_names.get(member.compress_type, member.compress_type)
            raise UserError(f"{printable(where)} is compressed by {method}: unpack the archive")
        found.append(Entry(name, where, member.file_size, _zip_opener(archive, member), container))
    return Listing(found, skipped)


def tar_members(entry: Entry, stack: contextlib.ExitStack) -> Listing:
    """Returns the files in a tar archive, plain or compressed; as `zip_members`."""
    file = stack.enter_context(entry.open())
    found: list[Entry] = []
    skipped: list[str] = []
    total = 0
    with reading(entry.where):
        compressed = "bz2" if entry.head.startswith(BZIP2) else ""
        if compressed:
            import bz2

            file = stack.enter_context(cast(BinaryIO, bz2.BZ2File(file)))
        small = stack.enter_context(_SmallReads(cast(io.RawIOBase, file)))
        archive = stack.enter_context(tarfile.open(fileobj=small, mode="r:"))
        for member in archive:
            name = member.name.lstrip("/")
            total += member.size
            if total > MOST_BYTES or len(found) + len(skipped) > MOST_MEMBERS:
                raise UserError(
                    f"{entry.where} unpacks to more than {MOST_BYTES // 10**9} GB or "
                    f"{MOST_MEMBERS:,} files: unpack it and name the folder"
                )
            if not member.isreg() or any(is_stray(part) for part in name.split("/")):
                if not member.isdir():
                    skipped.append(name)
                continue
            inside = Entry(name, f"{entry.where}: {name}", member.size, _tar_opener(archive, member))
            inside.head  # noqa: B018, read now: going back in a compressed archive is slow
            found.append(inside)
    return Listing(found, skipped)


def _open_zip(entry: Entry, stack: contextlib.ExitStack) -> zipfile.ZipFile:
    """Opens a zip file on disk, or one that lies in another archive or in gzip in memory."""
    with reading(entry.where):
        file = entry.open_stored()
        if entry.gzipped or not isinstance(file, io.BufferedReader):
            file.close()
            file = io.BytesIO(entry.content(MOST_BYTES_IN_MEMORY))
        small = stack.enter_context(_SmallReads(cast(io.RawIOBase, file)))
        archive = stack.enter_context(zipfile.ZipFile(small))
        if len(archive.infolist()) > MOST_MEMBERS:
            raise UserError(
                f"{entry.where} holds more than {MOST_MEMBERS:,} files: "
                "unpack it and name the folder"
            )
        return archive


def _zip_opener(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    return lambda: cast(BinaryIO, archive.open(member))


def _tar_opener(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        file = archive.extractfile(member)
        if file is None:
            raise tarfile.ReadError("no regular file")
        return cast(BinaryIO, file)

    return opened


__all__ = ["HEAD_BYTES", "is_tar", "is_zip", "tar_members", "zip_members", "zip_names"]
