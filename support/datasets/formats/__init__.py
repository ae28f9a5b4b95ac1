"""Reads data sets in many formats, which are recognized by content and not by name.

    contents = formats.read("mine.zip")       # a file, a folder or an archive

To add a format, write a module with `recognizes(entry)` and `read(request)`, and add a line to
`FORMATS`. A format that is only recognized, with advice on converting it, gets a line in
`not_read.NOT_READ`.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from support.datasets import archives, entries, roles
from support.datasets.entries import Entry, Listing, listed
from support.datasets.formats import csv_tables, idx, not_read, npy, pictures
from support.datasets.formats.request import Request
from support.datasets.types import Contents
from support.errors import UserError
from support.text import printable


class Format(NamedTuple):
    """A format that is read.

    Attributes:
        name: its name, for people.
        recognizes: a function that says from its first bytes whether a file has this format.
        read: a function that reads the data set in all files of this format.
        of_several: whether one file may stand for all files with similar names beside it.
    """

    name: str
    recognizes: Callable[[Entry], bool]
    read: Callable[[Request], Contents]
    of_several: bool


IDX = "IDX files"
# If a folder holds several formats, the first of them in this order is read.
FORMATS = (
    Format("NumPy arrays (.npz, .npy)", npy.recognizes, npy.read, True),
    Format(IDX, idx.recognizes, idx.read, True),
    Format("CSV", csv_tables.recognizes, csv_tables.read, True),
    Format("pictures", pictures.recognizes, pictures.read, False),
)
EXPECTED = (
    "expected mnist.npz or another .npz, the four IDX files, CSV with 784 pixels per line, "
    "or one folder of pictures for each class; any of these may be in a zip or tar archive"
)
NPZ, ARCHIVE = "npz", "archive"
MOST_NPZ_FILES = 100
# Folders with more files of unknown format than this are refused.
MOST_UNKNOWN = 100_000


class Sorted(NamedTuple):
    """Files sorted by what they are.

    Attributes:
        of_format: name of a format -> the files.
        archives: zip and tar archives that hold other files.
        unknown: all other files.
        skipped: the names of files that were skipped without being opened.
    """

    of_format: dict[str, list[Entry]]
    archives: list[Entry]
    unknown: list[Entry]
    skipped: list[str]


def read(path: str, transpose: bool | None = None) -> Contents:
    """Reads the data set in a file, a folder or an archive.

    Args:
        path: the path of the file, folder or archive.
        transpose: whether to exchange the rows and columns of the images; None: only EMNIST's.

    Raises:
        UserError: there is no data set, or it cannot be read.
    """
    where = printable(path)
    if os.path.isdir(path):
        return read_entries(entries.in_folder(path), where, transpose)
    if not os.path.lexists(path):
        raise UserError(f"{where} does not exist: {EXPECTED}")
    if not os.path.isfile(path):
        raise UserError(f"{where} is neither a file nor a folder: {EXPECTED}")
    return _read_file(entries.of_file(path), path, where, transpose)


def _read_file(entry: Entry, path: str, where: str, transpose: bool | None) -> Contents:
    """Reads the data set that one file holds, or is part of."""
    entry.stored_head  # noqa: B018, raises an error if the file cannot be read
    kind = _kind_of(entry)
    partial = any(kind == data_format.name for data_format in FORMATS if data_format.of_several)
    if kind == NPZ:
        # As in KMNIST's own downloads, which have one array per file.
        partial = len(archives.zip_names(entry)) == 1
    role = roles.of(entry.name)
    beside = []
    if partial and (role.part or role.kind):
        beside = _beside(entry, path, kind)
    if kind == IDX:
        # The data set is four files, so messages give their folder.
        where = printable(os.path.dirname(path) or ".")
    return read_entries(Listing([entry, *beside], []), where, transpose)


def _beside(entry: Entry, path: str, kind: str) -> list[Entry]:
    """Returns the other files of the data set that a given file belongs to.

    They have the same format and similar names, and are in the same folder.
    """
    family = roles.of(entry.name).family
    folder = os.path.dirname(path) or "."
    similar = [
        other
        for other in entries.in_folder(folder, depth=1).entries
        if other.name != entry.name and roles.of(other.name).family == family
    ]
    return [other for other in similar if _kind_of(other) == kind]


def read_entries(listing: Listing, where: str, transpose: bool | None = None) -> Contents:
    """Reads the data set in these files.

    Args:
        listing: the files.
        where: where they are, for messages.
        transpose: as in `read`.

    Raises:
        UserError: there is no data set in them that can be read.
    """
    with contextlib.ExitStack() as stack:
        found = _sorted(listing, where, stack)
        for data_format in FORMATS:
            files = found.of_format[data_format.name]
            if not files:
                continue
            request = Request(files, found.unknown, where, transpose)
            contents = data_format.read(request)
            notices = (*contents.notices, *request.notices, *_others(found, data_format))
            return contents._replace(notices=notices)
        if len(found.archives) == 1:
            return _read_archive(found.archives[0], transpose, stack)
        raise _nothing_in(found, where)


def _sorted(listing: Listing, where: str, stack: contextlib.ExitStack) -> Sorted:
    """Sorts files by format, judged by their first bytes; replaces an `.npz` with its arrays."""
    found = Sorted({data_format.name: [] for data_format in FORMATS}, [], [], list(listing.skipped))
    npz_files = 0
    for entry in listing.entries:
        kind = _kind_of(entry)
        if kind == NPZ:
            npz_files += 1
            if npz_files > MOST_NPZ_FILES:
                raise UserError(
                    f"{where} holds more than {MOST_NPZ_FILES} .npz files: give the path of one of "
                    "them"
                )
            members = archives.zip_members(entry, stack, container=entry.name)
            found.of_format[FORMATS[0].name] += members.entries
        elif kind == ARCHIVE:
            found.archives.append(entry)
        elif kind:
            found.of_format[kind].append(entry)
        else:
            found.unknown.append(entry)
            if len(found.unknown) > MOST_UNKNOWN:
                raise UserError(
                    f"{where} holds more than {MOST_UNKNOWN:,} files of unknown format, such as "
                    f"{printable(entry.name)}: {EXPECTED}"
                )
    return found


def _kind_of(entry: Entry) -> str:
    """Returns the name of a file's format, `NPZ`, `ARCHIVE`, or an empty string."""
    if entry.size == 0:
        return ""
    try:
        if archives.is_zip(entry):
            names = archives.zip_names(entry)
            if names and all(name.endswith(".npy") for name in names):
                return NPZ
            return "" if not_read.format_of(entry) else ARCHIVE
        if archives.is_tar(entry):
            return ARCHIVE
        for data_format in FORMATS:
            if data_format.recognizes(entry):
                return data_format.name
    except UserError:
        # The file cannot be read, which is reported if nothing else is found.
        pass
    return ""


def _read_archive(archive: Entry, transpose: bool | None, stack: contextlib.ExitStack) -> Contents:
    if archives.is_zip(archive):
        listing = archives.zip_members(archive, stack)
    else:
        listing = archives.tar_members(archive, stack)
    inside = [
        entry for entry in listing.entries if archives.is_zip(entry) or archives.is_tar(entry)
    ]
    for entry in inside:
        if _kind_of(entry) == ARCHIVE:
            raise UserError(
                f"{entry.where} is an archive in an archive: unpack {archive.where} and give the "
                "path of the folder"
            )
    return read_entries(listing, archive.where, transpose)


def _others(found: Sorted, read_format: Format) -> list[str]:
    """Returns lines that say which files were not used."""
    lines = []
    strays = [entry.name for entry in found.unknown] + found.skipped
    if strays:
        kinds = Counter(name.rstrip("/").rsplit("/", 1)[-1] for name in strays)
        files_ = "file was" if len(strays) == 1 else "files were"
        lines.append(f"{len(strays):,} other {files_} skipped: {listed(list(kinds))}")
    for name, files in found.of_format.items():
        if files and name != read_format.name:
            names = [entry.container or entry.name for entry in files]
            lines.append(f"files that were not used ({name}): {listed(list(dict.fromkeys(names)))}")
    if found.archives:
        names = [entry.name for entry in found.archives]
        lines.append(f"archives that were not used: {listed(names)}")
    return lines


def _nothing_in(found: Sorted, where: str) -> UserError:
    """Returns an error that says what was found instead of a data set."""
    if found.archives:
        names = listed([entry.name for entry in found.archives])
        return UserError(
            f"{where} holds {len(found.archives)} archives ({names}): give the path of one of them"
        )
    for entry in found.unknown:
        if archives.is_zip(entry):
            # Raises an error if it is damaged.
            archives.zip_names(entry)
        known = not_read.format_of(entry)
        if known:
            advice = known.advice_for(entry)
            return UserError(f"{entry.where} is {known.name} and cannot be read: {advice}")
    if len(found.unknown) == 1:
        entry = found.unknown[0]
        if entry.size == 0:
            return UserError(f"{entry.where} is empty: {EXPECTED}")
        if entry.gzipped and not entry.head:
            return UserError(
                f"{entry.where} is damaged (no valid gzip data): download or copy it again"
            )
        return UserError(
            f"{entry.where} has an unknown format (it begins with {entry.head[:16]!r}): {EXPECTED}"
        )
    count = len(found.unknown) + len(found.skipped)
    shown = listed([entry.name for entry in found.unknown] + found.skipped)
    if not count:
        return UserError(f"{where} is empty: {EXPECTED}")
    return UserError(f"{where} holds {count:,} files, none of a known format ({shown}): {EXPECTED}")
