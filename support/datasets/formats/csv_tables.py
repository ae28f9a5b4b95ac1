"""Reads CSV files with one image per line, like Kaggle's MNIST, with or without header and labels.

Values may be separated by commas, semicolons or tabs. The labels are in the column that the header
calls `label` or the like; without such a header, in the first or last column, whichever resembles
labels.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.datasets import arrays, roles
from support.datasets.entries import MOST_BYTES, Entry, listed, reading
from support.datasets.formats import named_arrays
from support.datasets.formats.request import Request
from support.datasets.roles import TRAIN
from support.datasets.types import Contents
from support.errors import UserError

SEPARATORS = b",;\t"
MOST_LINE_BYTES = 4_000_000
PIECE_BYTES = 1 << 22
BOM = b"\xef\xbb\xbf"
# How many lines are examined to find the column of the labels.
SAMPLE_LINES = 300
FEWEST_COLUMNS = 64
# As many classes as EMNIST has.
MOST_LIKELY_CLASSES = 62
LABEL_NAMES = {"label", "labels", "class", "target", "y", "digit", "category", "character"}
INDEX_NAMES = {"", "id", "index", "unnamed: 0", "imageid"}
NUMBER = re.compile(rb"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


class Layout(NamedTuple):
    """How a table is laid out.

    Attributes:
        separator: one byte.
        columns: how many values a line has.
        trailing: whether a separator follows the last value.
        header: the names of the columns in lower case; empty if there is no header.
        label: the column of the labels; None if there are none.
        label_is_text: whether labels are names rather than numbers.
        pixels: the columns of the pixels.
    """

    separator: bytes
    columns: int
    trailing: bool
    header: list[str]
    label: int | None
    label_is_text: bool
    pixels: list[int]


def looks_like_text(head: bytes) -> bool:
    """Whether this is text that contains separators."""
    control = any(byte < 32 and byte not in b"\t\r\n" for byte in head)
    return not control and any(separator in head for separator in SEPARATORS)


def recognizes(entry: Entry) -> bool:
    """Whether this is a table with one image per line."""
    if not looks_like_text(entry.head.removeprefix(BOM)):
        return False
    return layout_of(entry) is not None


def layout_of(entry: Entry) -> Layout | None:
    """Returns the layout of a table whose lines hold images; None for other text."""
    lines = _first_lines(entry, SAMPLE_LINES)
    if not lines:
        return None
    separator = _separator(lines[-1])
    rows = [_fields(line, separator) for line in lines]
    trailing = all(row[-1] == b"" for row in rows)
    if trailing:
        rows = [row[:-1] for row in rows]
    if len(rows[0]) < FEWEST_COLUMNS:
        return None
    header = _header(rows)
    rows = rows[1:] if header else rows
    if not rows:
        return None
    rows = [row for row in rows if len(row) == len(rows[0])]
    columns = len(rows[0])
    index, label = _named_columns(header)
    others = columns - (index is not None) - (label is not None)
    if label is None and not _is_square(others):
        if index is None and _is_square(columns - 2) and _counts_up(rows, 0):
            index = 0
        label = _likely_label(rows, index)
        others = columns - (index is not None) - 1
    if not _is_square(others):
        return None
    label_is_text = False
    if label is not None:
        texts = sum(not _is_number(row[label]) for row in rows)
        label_is_text = texts > (0 if header else len(rows) / 2)
    pixels = [column for column in range(columns) if column not in (index, label)]
    return Layout(separator, columns, trailing, header, label, label_is_text, pixels)


def _separator(line: bytes) -> bytes:
    """Returns the separator of the values in a line; a comma may also be the decimal separator."""
    for separator in (b";", b"\t"):
        if line.count(separator) >= FEWEST_COLUMNS - 1:
            return separator
    return b","


def _first_lines(entry: Entry, most: int) -> list[bytes]:
    lines: list[bytes] = []
    with reading(entry.where), entry.open() as file:
        content = file.read(MOST_LINE_BYTES)
    content = content.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = [line for line in content.split(b"\n")[: most + 1] if line.strip()]
    if len(content) >= MOST_LINE_BYTES - 3 and len(lines) < most:
        lines = lines[:-1]
    return lines[:most]


def _fields(line: bytes, separator: bytes) -> list[bytes]:
    return [field.strip(b'" \t') for field in line.rstrip(b"\r\n").split(separator)]


def _is_number(field: bytes) -> bool:
    return NUMBER.fullmatch(field.replace(b",", b".")) is not None


def _header(rows: list[list[bytes]]) -> list[str]:
    """Returns the names of the columns if the first line is a header, else an empty list."""
    first = rows[0]
    texts = sum(not _is_number(field) for field in first)
    below = rows[1] if len(rows) > 1 else []
    counted = [field for field in first if _is_number(field)]
    # pandas writes 0, 1, 2, ... for columns without names.
    numbered = counted[:50] == [str(index).encode() for index in range(50)]
    if texts > 2 or (texts and all(map(_is_number, below))) or numbered:
        return [field.decode("utf-8", "replace").strip().lower() for field in first]
    return []


def _named_columns(header: list[str]) -> tuple[int | None, int | None]:
    """Returns the columns of the index and of the labels according to the header."""
    index = label = None
    for column, name in enumerate(header):
        if name in LABEL_NAMES and label is None:
            label = column
        elif name in INDEX_NAMES and index is None:
            index = column
    return index, label


def _likely_label(rows: list[list[bytes]], index: int | None) -> int:
    """Returns the first or the last column, whichever is likelier to be the labels.

    Labels are names, or whole numbers without large gaps. If both columns could be labels, the one
    with more different values is chosen: pixels in the corners of images hardly vary.
    """
    first = 0 if index != 0 else 1
    best, most = first, 0
    for column in (first, len(rows[0]) - 1):
        values = [row[column] for row in rows]
        texts = sum(not _is_number(value) for value in values)
        if texts > len(values) / 2:
            return column
        # A few words among numbers are mistakes, which are reported when the lines are read.
        numbers = {value for value in values if _is_number(value)}
        score = len(numbers) - 1
        if not _without_gaps(numbers):
            score = 0
        if score > most:
            best, most = column, score
    return best


def _without_gaps(values: set[bytes]) -> bool:
    numbers = sorted({float(value.replace(b",", b".")) for value in values}) or [0.5]
    gaps = [after - before for before, after in itertools.pairwise(numbers)]
    # A few lines may not show every class.
    return numbers[-1] < 256 and all(gap <= 3 for gap in gaps) and all(n == int(n) for n in numbers)


def _counts_up(rows: list[list[bytes]], column: int) -> bool:
    if not all(_is_number(row[column]) for row in rows):
        return False
    numbers = [float(row[column].replace(b",", b".")) for row in rows]
    return all(after == before + 1 for before, after in itertools.pairwise(numbers))


def _is_square(columns: int) -> bool:
    return columns >= FEWEST_COLUMNS and math.isqrt(columns) ** 2 == columns


def read(request: Request) -> Contents:
    """Reads a data set in CSV files.

    Raises:
        UserError: a line is not like the others, or there are several data sets.
    """
    plain_first = sorted(request.entries, key=lambda entry: entry.gzipped)
    chosen, others = roles.one_data_set(plain_first, _named, request.where)
    notices = []
    if others:
        names = listed([entry.name for entry in others])
        notices.append(
            f"another data set was not used: {names}; to use it, give the path of its file"
        )
    parts = {_part(entry): Table(entry) for entry in chosen}
    if TRAIN not in parts:
        # The largest part is trained on, whatever its name.
        largest = max(parts, key=lambda part: parts[part].entry.size)
        parts = {TRAIN: parts.pop(largest), **parts}
    sources = {part: table.source() for part, table in parts.items()}
    transposed = request.turned([entry.name for entry in chosen])
    result = arrays.read(sources, transposed)
    found: dict[str, NDArray] = {}
    for part, table in parts.items():
        if table.labels is not None:
            found[part] = table.labels
            if part in result.kept:
                found[part] = found[part][result.kept[part]]
        elif not table.layout.header and _begins_or_ends_with_labels(result.parts[part]):
            notices.append(
                f"{table.entry.name} has {len(table.layout.pixels)} columns, all taken for pixels, "
                "but the first or the last one looks like labels: if it holds labels, a column of "
                "pixels is missing"
            )
    splits, class_names = named_arrays.with_labels(result.parts, found, request.where, notices)
    return Contents(
        splits,
        class_names,
        f"CSV: {listed([entry.name for entry in chosen])}",
        named_arrays.values_line(sources, result.values),
        (*notices, *result.notices),
        transposed,
    )


def _begins_or_ends_with_labels(images: NDArray[np.uint8]) -> bool:
    """Whether a corner pixel varies as labels do, while the pixel beside it is nearly always 0."""
    for corner, beside in ((0, 1), (-1, -2)):
        values = images[:, corner]
        varies = np.mean(values > 0) > 0.5 and 2 < len(np.unique(values)) <= MOST_LIKELY_CLASSES
        if varies and np.mean(images[:, beside] > 0) < 0.05:
            return True
    return False


def why_no_layout(entry: Entry) -> str:
    """Returns how many values the lines of a table have that is not one of images."""
    lines = _first_lines(entry, SAMPLE_LINES)
    if not lines:
        return "no lines"
    return f"{len(_fields(lines[-1], _separator(lines[-1]))):,} values per line"


def _part(entry: Entry) -> str:
    return roles.of(entry.name).part or roles.part_of_folders(entry.name) or TRAIN


def _named(entry: Entry) -> roles.Named:
    return roles.Named(entry.name, roles.of(entry.name).family, (_part(entry),))


class Table:
    """The images and labels of one CSV file.

    Attributes:
        labels: the labels in the file, once the images have been read; None: there are none.
    """

    def __init__(self, entry: Entry) -> None:
        layout = layout_of(entry)
        if layout is None:
            raise UserError(
                f"{entry.where} is not a table of images: expected CSV with 784 pixels per line"
            )
        self.entry, self.layout = entry, layout
        self.labels: NDArray | None = None
        self._types: list[type] = [np.uint8, np.int32, np.float32]

    def source(self) -> arrays.ImageSource:
        """Returns the images, whose number becomes known when they are read."""
        shape = (len(self.layout.pixels),)
        return arrays.ImageSource(self.entry.where, None, shape, "CSV", self._pieces)

    def _pieces(self) -> Iterator[NDArray]:
        label, pixels = self.layout.label, self.layout.pixels
        contiguous = slice(pixels[0], pixels[-1] + 1)
        if pixels[-1] + 1 - pixels[0] != len(pixels):
            raise UserError(
                f"{self.entry.where} has the label between the pixels: expected it in the first or "
                "last column"
            )
        found: list[NDArray] = []
        for first_line, text in self._texts():
            texts: list[str] = []
            if self.layout.label_is_text:
                text, texts = self._without_names(text, first_line)
            numbers = self._numbers(text, first_line)
            if texts:
                found.append(np.array(texts))
            elif label is not None:
                found.append(numbers[:, label])
            if len(numbers):
                yield numbers[:, contiguous]
        if label is not None and found:
            self.labels = np.concatenate(found)

    def _texts(self) -> Iterator[tuple[int, bytes]]:
        """Yields whole lines, some megabytes at a time, after the number of the first of them."""
        rest, line, total = b"", 1, 0
        skip_header = bool(self.layout.header)
        with reading(self.entry.where), self.entry.open() as file:
            while True:
                piece = file.read(PIECE_BYTES)
                total += len(piece)
                if total > MOST_BYTES or len(rest) > MOST_LINE_BYTES:
                    raise UserError(
                        f"{self.entry.where} has more than {MOST_BYTES // 10**9} GB, or a line of "
                        f"more than {MOST_LINE_BYTES // 10**6} MB: use fewer images"
                    )
                if not rest and line == 1:
                    piece = piece.removeprefix(BOM)
                text = rest + piece
                if b"\r" in text:
                    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                end = len(text)
                if piece:
                    end = text.rfind(b"\n") + 1
                text, rest = text[:end], text[end:]
                if text:
                    lines = text.count(b"\n")
                    if skip_header:
                        text = text.lstrip(b"\n").partition(b"\n")[2]
                        skip_header = False
                        yield line + 1, text
                    else:
                        yield line, text
                    line += lines
                if not piece:
                    return

    def _numbers(self, text: bytes, first_line: int) -> NDArray:
        """Parses lines as bytes, which is fast, or else as whole numbers or floats.

        A type that did not fit once is not tried again for later lines.
        """
        separator = self.layout.separator
        if separator == b";":
            text = text.replace(b",", b".")
        if self.layout.trailing:
            text = text.replace(separator + b"\n", b"\n").removesuffix(separator)
        columns = self.layout.columns
        if not text.strip():
            return np.zeros((0, columns), np.uint8)
        while True:
            try:
                numbers: NDArray = self._parsed(text, separator)
            except (ValueError, DeprecationWarning) as error:
                if len(self._types) > 1:
                    del self._types[0]
                    continue
                raise self._wrong_line(text, first_line) from error
            if numbers.shape[1] != columns:
                raise self._wrong_line(text, first_line)
            return numbers

    def _parsed(self, text: bytes, separator: bytes) -> NDArray:
        """Returns lines as numbers of the first type that is left.

        Raises:
            ValueError, DeprecationWarning: a value is not of this type. Earlier versions of NumPy
                only warn of a fraction, and cut it off.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            return np.loadtxt(
                io.BytesIO(text),
                dtype=self._types[0],
                delimiter=separator.decode(),
                comments=None,
                quotechar='"',
                ndmin=2,
            )

    def _wrong_line(self, text: bytes, first_line: int) -> UserError:
        """Returns an error that says which line is the first that is not like the others."""
        columns = self.layout.columns
        for number, line in enumerate(text.split(b"\n"), first_line):
            if not line.strip():
                continue
            fields = _fields(line, self.layout.separator)[: columns + 1]
            if self.layout.trailing and not fields[-1]:
                del fields[-1]
            where = f"{self.entry.where}, line {number:,}"
            if len(fields) != columns:
                return UserError(
                    f"{where} has {len(fields)} values: expected {columns}, as in the other lines"
                )
            for column, value in enumerate(fields, 1):
                if not _is_number(value):
                    return UserError(
                        f"{where}, value {column} is {value[:20]!r}: expected a number"
                    )
        return UserError(f"{self.entry.where} is not a table of numbers: save it as CSV again")

    def _without_names(self, text: bytes, first_line: int) -> tuple[bytes, list[str]]:
        """Returns lines with 0 in place of their labels, which are names, and these names."""
        separator = self.layout.separator
        lines, names = [], []
        for number, line in enumerate(text.split(b"\n"), first_line):
            if not line.strip():
                continue
            if self.layout.label == 0:
                name, found, rest = line.partition(separator)
                lines.append(b"0" + separator + rest)
            else:
                rest, found, name = line.rpartition(separator)
                lines.append(rest + separator + b"0")
            if not found:
                raise UserError(
                    f"{self.entry.where}, line {number:,} has only one value: expected a label and "
                    "the pixels"
                )
            names.append(name.strip(b'" \t\r').decode("utf-8", "replace"))
        return b"\n".join(lines), names
