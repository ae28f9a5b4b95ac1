"""Reads NumPy's `.npy` files, and the members of `.npz` files, which are `.npy` files in a zip.

Arrays of Python objects are pickles, which could run code when they are loaded: they are refused.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.lib import format as npy_format

from support.datasets import roles
from support.datasets.entries import Entry, reading
from support.datasets.formats import named_arrays
from support.datasets.formats.named_arrays import Header
from support.datasets.formats.request import Request
from support.datasets.types import Contents
from support.errors import UserError

MAGIC = b"\x93NUMPY"
MOST_HEADER_BYTES = 1 << 17


def recognizes(entry: Entry) -> bool:
    """Whether this begins like an `.npy` file."""
    return entry.head.startswith(MAGIC)


def read(request: Request) -> Contents:
    """Reads a data set in NumPy's arrays.

    Raises:
        UserError: there are no images, there are several data sets, or arrays do not match.
    """
    found = []
    for entry in request.entries:
        header = _header(entry)
        if header.dtype.hasobject and roles.of(entry.name).kind:
            raise UserError(
                f"{entry.where} holds Python objects (a pickle, which could run code): load it "
                "yourself and save plain arrays, such as np.array(images, dtype='uint8') and "
                "np.array(labels, dtype=str)"
            )
        found.append(named_arrays.named(entry, header))
    return named_arrays.assemble(found, request.where, "NumPy arrays", request.turned_if_asked)


def _header(entry: Entry) -> Header:
    with reading(entry.where):
        with entry.open() as stored:
            # No valid header is longer, whatever length a file states.
            file = io.BytesIO(stored.read(MOST_HEADER_BYTES))
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(file)
        else:
            raise ValueError(f"its header has version {version}, expected 1.0 or 2.0")
        named_arrays.require_shape(entry, shape)
        return Header(shape, np.dtype(dtype), bool(fortran), file.tell())
