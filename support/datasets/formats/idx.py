"""Reads IDX files, the format in which MNIST was published.

A file has a magic number with the type and the number of axes, then the shape, then the numbers,
all big-endian (LeCun, Cortes and Burges, MNIST page).
"""

from __future__ import annotations

import struct

import numpy as np

from support.datasets.entries import Entry, listed
from support.datasets.formats import named_arrays
from support.datasets.formats.named_arrays import Header, NamedArray
from support.datasets.formats.request import Request
from support.datasets.roles import IMAGES, LABELS, TEST, TRAIN
from support.datasets.types import Contents
from support.errors import UserError
from support.text import printable

TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
MOST_AXES = 4
ORIGINAL_NAMES = {
    (TRAIN, IMAGES): "train-images-idx3-ubyte",
    (TRAIN, LABELS): "train-labels-idx1-ubyte",
    (TEST, IMAGES): "t10k-images-idx3-ubyte",
    (TEST, LABELS): "t10k-labels-idx1-ubyte",
}


def recognizes(entry: Entry) -> bool:
    """Whether this begins like an IDX file."""
    return _header(entry) is not None


def _header(entry: Entry) -> Header | None:
    head = entry.head
    if len(head) < 8 or head[:2] != b"\0\0" or head[2] not in TYPES:
        return None
    axes = head[3]
    if not 1 <= axes <= MOST_AXES or len(head) < 4 + 4 * axes:
        return None
    shape = struct.unpack_from(f">{axes}I", head, 4)
    if max(shape) >= 2**31:
        return None
    return Header(shape, np.dtype(TYPES[head[2]]), False, 4 + 4 * axes)


def read(request: Request) -> Contents:
    """Reads a data set in IDX files.

    Raises:
        UserError: a file of the data set is missing, or is not as long as its header says.
    """
    found = []
    for entry in request.entries:
        header = _header(entry)
        if header:
            found.append(named_arrays.named(entry, header))

    def check(data_set: list[NamedArray]) -> None:
        _require_all(data_set, request)

    if not any(array.kind == IMAGES for array in found):
        check(found)
    return named_arrays.assemble(found, request.where, "IDX files", request.turned, check)


def _require_all(found: list[NamedArray], request: Request) -> None:
    """Refuses images without their labels, and labels without their images."""
    roles = {(array.part or TRAIN, array.kind) for array in found}
    needed = {(part, kind) for part, _ in roles for kind in (IMAGES, LABELS)}
    if (TRAIN, IMAGES) in roles and needed <= roles:
        return
    present = listed([array.entry.name for array in found])
    missing = listed([name for role, name in ORIGINAL_NAMES.items() if role not in roles])
    message = f"{request.where} has {present}, but not {missing}: put all of them into one folder"
    suspects = [entry for entry in request.unknown if "ubyte" in entry.name.lower()]
    for entry in suspects[:1]:
        begins = entry.head[:12] or entry.stored_head[:12]
        message += f"; {printable(entry.name)} is not an IDX file (it begins with {begins!r})"
    raise UserError(message)
