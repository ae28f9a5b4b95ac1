"""Reads float32 arrays from the HDF5 files that Keras writes, and trusts nothing in them.

    file = Hdf5File(content)                      # content: bytes
    kernel = file.read("layers/functional/layers/dense/vars/0", (784, 512))

The HDF5 library follows whatever a file says: a few changed bytes make it take tens of gigabytes,
or never return. So this reader takes only what Keras needs: groups by name, and arrays that are
stored contiguously. Everything is looked up inside `content`, in a bounded number of steps; what
has any other form is refused. Field by field as in the HDF5 File Format Specification, version 3.0
(https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html), whose section numbers the
comments give.
"""

import math
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Version 0 of the superblock and of its parts, with addresses and lengths of 8 bytes (II.A).
SUPERBLOCK = struct.Struct("<8s B B B x B B B x H H I Q Q Q Q")
# Of a group's entry for a member: where its name and its header are (III.C).
ENTRY = struct.Struct("<Q Q I 4x 16x")
# Object headers, version 1, and their messages (IV.A.1.a).
HEADER = struct.Struct("<B x H I I 4x")
MESSAGE = struct.Struct("<H H B 3x")
DATASPACE, DATATYPE, LAYOUT, CONTINUATION, SYMBOL_TABLE = 0x01, 0x03, 0x08, 0x10, 0x11
# An address and an address, or an address and a length.
TWO_NUMBERS = struct.Struct("<Q Q")
# A header in more pieces, a group of more nodes, or a longer name, is nothing that Keras writes.
MOST_PIECES = 16
MOST_NODES = 64
LONGEST_NAME = 64
# Little-endian IEEE float32 (IV.A.2.d): class and version, bit fields, size, and properties.
FLOAT32 = bytes.fromhex("11 201f00 04000000 0000 2000 17 08 00 17 7f000000")
CONTIGUOUS = 1
NO_FREE_BLOCK = 1


class Hdf5File:
    """An HDF5 file in memory.

    Args:
        content: of the file.

    Raises:
        ValueError: it is not an HDF5 file of the form that Keras writes.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        fields = self._unpack(SUPERBLOCK, 0)
        signature, version, sizes = fields[0], fields[1], fields[5:7]
        base, end = fields[10], fields[12]
        if signature != SIGNATURE or version != 0 or sizes != (8, 8):
            raise ValueError("the HDF5 member has another version than Keras writes")
        if base != 0 or end != len(content):
            raise ValueError(f"the HDF5 member says that it ends at {end}, not at {len(content)}")
        self._root = self._unpack(ENTRY, SUPERBLOCK.size)[1]

    def read(self, path: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns an array.

        Args:
            path: of the array, groups and name separated by `/`.
            shape: that it must have.

        Raises:
            ValueError: there is none of that shape, or it is not plain float32.
        """
        try:
            header = self._root
            for name in path.split("/"):
                header = self._members(header)[name]
            offset = self._data_offset(header, shape)
        except (KeyError, struct.error) as error:
            raise ValueError(f"{path} is missing") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return np.frombuffer(self._content, "<f4", math.prod(shape), offset).reshape(shape)

    def _unpack(self, fields: struct.Struct, offset: int) -> tuple:
        """Returns the fields at an offset; raises struct.error where they lie outside."""
        if offset > len(self._content):
            raise struct.error("an address outside of the file")
        return fields.unpack_from(self._content, offset)

    def _messages(self, header: int) -> dict[int, list[tuple[int, int]]]:
        """Returns the messages of an object header: offset and size by type."""
        version, count, _, size = self._unpack(HEADER, header)
        if version != 1:
            raise ValueError("an object header of another version than Keras writes")
        found: dict[int, list[tuple[int, int]]] = {}
        pieces, done = [(header + HEADER.size, size)], 0
        for offset, length in pieces:
            end = offset + length
            if end > len(self._content) or len(pieces) > MOST_PIECES:
                raise ValueError(f"an object header has {length} bytes at {offset}")
            while offset + MESSAGE.size <= end and done < count:
                kind, message_size, _ = self._unpack(MESSAGE, offset)
                offset += MESSAGE.size
                found.setdefault(kind, []).append((offset, message_size))
                if kind == CONTINUATION:
                    pieces.append(self._unpack(TWO_NUMBERS, offset))
                offset += message_size
                done += 1
        if done != count:
            raise ValueError(f"an object header has {done} of {count} messages")
        return found

    def _only(self, messages: dict[int, list[tuple[int, int]]], kind: int) -> tuple[int, int]:
        """Returns the one message of a type; raises KeyError where there is not exactly one."""
        if len(messages.get(kind, [])) != 1:
            raise KeyError(kind)
        return messages[kind][0]

    def _members(self, header: int) -> dict[str, int]:
        """Returns the address of the object header of each member of a group, by name (III)."""
        offset, _ = self._only(self._messages(header), SYMBOL_TABLE)
        tree, heap = self._unpack(TWO_NUMBERS, offset)
        names = self._names(heap)
        members = {}
        for node in self._leaves(tree):
            signature, version, count = self._unpack(struct.Struct("<4s B x H"), node)
            if signature != b"SNOD" or version != 1 or count > MOST_NODES:
                raise KeyError("symbol table node")
            for index in range(count):
                name, member, cache_type = self._unpack(ENTRY, node + 8 + index * ENTRY.size)
                # Type 2 is a symbolic link.
                if cache_type in (0, 1):
                    members[self._name(names + name)] = member
        return members

    def _names(self, heap: int) -> int:
        """Returns where the names of a group's members begin: its local heap (III.D)."""
        signature, size, free, names = self._unpack(struct.Struct("<4s 4x Q Q Q"), heap)
        if signature != b"HEAP" or names + size > len(self._content):
            raise KeyError("local heap")
        # The list of free blocks ascends to its end, or the HDF5 library would follow it for ever.
        while free != NO_FREE_BLOCK:
            following, length = self._unpack(TWO_NUMBERS, names + free)
            ascends = length >= 16 and following >= free + length
            if free + length > size or not (ascends or following == NO_FREE_BLOCK):
                raise ValueError("a list of free blocks that does not end")
            free = following
        return names

    def _leaves(self, tree: int) -> Iterator[int]:
        """Yields the addresses of a group's symbol table nodes: the children of its B-tree."""
        head = struct.Struct("<4s B B H Q Q")
        signature, kind, level, count, _, _ = self._unpack(head, tree)
        # Keras's groups are too small for a tree with more than one level.
        if signature != b"TREE" or kind != 0 or level != 0 or count > MOST_NODES:
            raise KeyError("B-tree")
        for index in range(count):
            _, child = self._unpack(TWO_NUMBERS, tree + head.size + 16 * index)
            yield child

    def _name(self, offset: int) -> str:
        name, end, _ = self._content[offset : offset + LONGEST_NAME].partition(b"\0")
        if not end:
            raise KeyError("name")
        return name.decode("ascii", "replace")

    def _data_offset(self, header: int, shape: tuple[int, ...]) -> int:
        """Returns where the numbers of an array begin."""
        messages = self._messages(header)
        self._require_shape(self._only(messages, DATASPACE)[0], shape)
        offset, _ = self._only(messages, DATATYPE)
        if self._content[offset : offset + len(FLOAT32)] != FLOAT32:
            raise ValueError("expected little-endian float32")
        offset, _ = self._only(messages, LAYOUT)
        version, kind, address, size = self._unpack(struct.Struct("<B B Q Q"), offset)
        if (version, kind) != (3, CONTIGUOUS):
            raise ValueError("not stored contiguously")
        if size != 4 * math.prod(shape) or address + size > len(self._content):
            raise ValueError(f"{size} bytes at {address} are not an array of shape {shape}")
        return address

    def _require_shape(self, offset: int, shape: tuple[int, ...]) -> None:
        version, rank, _ = self._unpack(struct.Struct("<B B B"), offset)
        # Version 1 has five bytes more before the dimensions (IV.A.2.b).
        start = {1: 8, 2: 4}[version]
        if rank != len(shape):
            raise ValueError(f"{rank} dimensions, expected the shape {shape}")
        found = self._unpack(struct.Struct(f"<{rank}Q"), offset + start)
        if found != shape:
            raise ValueError(f"the shape {found}, expected the shape {shape}")
