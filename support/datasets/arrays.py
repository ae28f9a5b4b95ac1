"""Images of any numbers and sizes, read piece by piece, as 28x28 bytes.

Whatever the type and the number of the images, memory holds the bytes that they become and one
piece of what is read. Where values must be scaled, a first pass finds their range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.datasets import bar, preprocessing
from support.datasets.types import GREY_WEIGHTS, MOST_IMAGES, PIXELS, SIDE
from support.errors import UserError

# What one piece of images may hold, in numbers.
PIECE = 1 << 21
SMALLEST_SIDE, LARGEST_SIDE = 4, 4096
# Images of other sizes take about a millisecond each.
MOST_PREPROCESSED = 200_000
# Whole numbers up to one of these are taken for grey levels of 1 to 6 bits; 16 is the largest of
# scikit-learn's digits.
FEW_LEVELS = (1, 3, 7, 15, 16, 31, 63)
# The share of images that may show nothing before they are refused.
FEW = 0.01


class ImageSource(NamedTuple):
    """Images of one part of a data set, that can be read more than once.

    Attributes:
        what: the file or array, for messages.
        images: how many there are; None where the file does not say.
        shape: of one image.
        kind: the type of the numbers as the file has it, for messages.
        pieces: a function that returns an iterator over arrays (k, *shape).
    """

    what: str
    images: int | None
    shape: tuple[int, ...]
    kind: str
    pieces: Callable[[], Iterator[NDArray]]


class Layout(NamedTuple):
    """Where rows, columns and colours of an image are.

    Attributes:
        shape: of one image without axes of length 1.
        side: (height, width).
        channels: 1, 3 or 4.
        channels_first: whether the colours come before the rows.
    """

    shape: tuple[int, ...]
    side: tuple[int, int]
    channels: int = 1
    channels_first: bool = False


class Values(NamedTuple):
    """The range of the numbers in images.

    Attributes:
        lowest, highest: the smallest and the largest number.
        whole: whether all are whole numbers.
        boolean: whether all are of type bool.
        floating: whether some are of a floating type.
    """

    lowest: float
    highest: float
    whole: bool
    boolean: bool
    floating: bool

    def joined(self, other: Values) -> Values:
        """The range of both."""
        return Values(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.whole and other.whole,
            self.boolean and other.boolean,
            self.floating or other.floating,
        )


class Scale(NamedTuple):
    """How numbers become bytes: `factor * (number - offset)`, rounded; and a line that says so."""

    offset: float
    factor: float
    notice: str = ""


class Images(NamedTuple):
    """Images of all parts as bytes.

    Attributes:
        parts: part -> uint8 (n, 784).
        kept: part -> which of the images that were read these are, where some were left out.
        values: the range before.
        notices: lines about what was done.
    """

    parts: dict[str, NDArray[np.uint8]]
    kept: dict[str, NDArray[np.bool_]]
    values: Values
    notices: list[str]


def layout_of(shape: tuple[int, ...]) -> Layout | None:
    """Returns the layout of an image of this shape; None where it is no image."""
    shape = tuple(length for length in shape if length != 1)
    if len(shape) == 1:
        root = math.isqrt(shape[0])
        if root * root == shape[0] and root >= SMALLEST_SIDE:
            return _sized(shape, (root, root))
    if len(shape) == 2:
        return _sized(shape, shape)
    if len(shape) == 3 and shape[2] in (3, 4):
        return _sized(shape, shape[:2], shape[2])
    if len(shape) == 3 and shape[0] in (3, 4):
        return _sized(shape, shape[1:], shape[0], channels_first=True)
    return None


def _sized(
    shape: tuple[int, ...], side: tuple[int, ...], channels: int = 1, channels_first: bool = False
) -> Layout | None:
    height, width = side
    if min(side) < SMALLEST_SIDE or max(side) > LARGEST_SIDE:
        return None
    return Layout(shape, (height, width), channels, channels_first)


def read(sources: dict[str, ImageSource], transposed: bool) -> Images:
    """Reads the images of all parts.

    Args:
        sources: part -> images; all are scaled in the same way.
        transposed: whether rows and columns of each image are to be exchanged.

    Raises:
        UserError: values or shapes that are no images, or too many of them.
    """
    layouts = {part: _required_layout(source) for part, source in sources.items()}
    first = {part: _first_pass(source, layouts[part]) for part, source in sources.items()}
    ranges = [values for _, values in first.values()]
    values = ranges[0]
    for other in ranges[1:]:
        values = values.joined(other)
    scale = scale_of(values, ", ".join(source.what for source in sources.values()))
    parts, kept, notices = {}, {}, []
    if scale.notice:
        notices.append(scale.notice)
    for part, source in sources.items():
        images = first[part][0]
        if images is None:
            images, kept[part] = _second_pass(source, layouts[part], scale)
        elif scale.factor != 1:
            images = _as_bytes(images, scale)
        if transposed:
            square = images.reshape(-1, SIDE, SIDE).transpose(0, 2, 1)
            images = np.ascontiguousarray(square).reshape(-1, PIXELS)
        parts[part] = images
    return Images(parts, kept, values, notices + _done_to(sources, layouts, kept))


def _required_layout(source: ImageSource) -> Layout:
    layout = layout_of(source.shape)
    if layout is None:
        raise UserError(
            f"{source.what} has images of shape {source.shape}: expected (28, 28), (784,), or "
            "another height and width, with 1, 3 or 4 colours"
        )
    small = layout.side == (SIDE, SIDE)
    most = MOST_IMAGES if small else MOST_PREPROCESSED
    if source.images is not None and source.images > most:
        height, width = layout.side
        raise UserError(
            f"{source.what} has {source.images:,} images of {height}x{width}: "
            f"expected {most:,} at most; use fewer of them"
        )
    return layout


def _first_pass(source: ImageSource, layout: Layout) -> tuple[NDArray[np.uint8] | None, Values]:
    """Reads all numbers once.

    Returns:
        The images, uint8 (n, 784), where they are grey, 28x28 and whole numbers from 0 to 255;
        else None; and the range.
    """
    storing = layout.side == (SIDE, SIDE) and layout.channels == 1
    rows = _Rows(source.images)
    found: Values | None = None
    count = 0
    for piece in source.pieces():
        count += len(piece)
        if count > MOST_IMAGES:
            raise UserError(f"{source.what} has more than {MOST_IMAGES:,} images: use fewer")
        values = _range(piece, source.what)
        found = values if found is None else found.joined(values)
        if storing and found.whole and found.lowest >= 0 and found.highest <= 255:
            rows.add(piece.reshape(-1, PIXELS).astype(np.uint8, copy=False))
        else:
            storing = False
            rows.clear()
    if found is None:
        raise UserError(f"{source.what} has no images")
    return (rows.all() if storing else None), found


def _second_pass(
    source: ImageSource, layout: Layout, scale: Scale
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Reads all numbers again and turns them into 28x28 bytes.

    Returns:
        uint8 (k, 784), and of the n images read, which are among the k: those of another size that
        show nothing are left out.
    """
    rows = _Rows(source.images)
    kept: list[bool] = []
    for piece in source.pieces():
        images = _grey(_as_bytes(piece, scale), layout)
        if layout.side == (SIDE, SIDE):
            rows.add(images.reshape(-1, PIXELS))
            kept += [True] * len(images)
            continue
        for image in bar.shown(list(images), "Preprocessing images"):
            try:
                rows.add(preprocessing.preprocess(image / 255).reshape(1, PIXELS))
                kept.append(True)
            except ValueError:
                kept.append(False)
        if len(kept) > MOST_PREPROCESSED:
            raise UserError(
                f"{source.what} has more than {MOST_PREPROCESSED:,} images of other sizes than "
                "28x28: use fewer of them"
            )
    empty = len(kept) - sum(kept)
    if empty > max(5, FEW * len(kept)):
        raise UserError(
            f"{source.what}: {empty:,} of {len(kept):,} images show nothing that could be brought "
            "to 28x28 (one colour only): expected bright ink on dark, or dark on bright"
        )
    return rows.all(), np.array(kept, bool)


class _Rows:
    """Images as they come, in one array where their number is known."""

    def __init__(self, count: int | None) -> None:
        self.array = None if count is None else np.empty((count, PIXELS), np.uint8)
        self.pieces: list[NDArray[np.uint8]] = []
        self.filled = 0

    def add(self, rows: NDArray[np.uint8]) -> None:
        if self.array is None:
            self.pieces.append(rows)
        else:
            self.array[self.filled : self.filled + len(rows)] = rows
        self.filled += len(rows)

    def clear(self) -> None:
        self.array, self.pieces = None, []

    def all(self) -> NDArray[np.uint8]:
        if self.array is not None:
            return self.array[: self.filled]
        if not self.pieces:
            return np.zeros((0, PIXELS), np.uint8)
        return np.concatenate(self.pieces)


def _range(piece: NDArray, what: str) -> Values:
    if piece.dtype.kind == "f" and not np.isfinite(piece).all():
        raise UserError(f"{what} has pixels that are not a number or infinite: expected 0 to 255")
    floating, boolean = piece.dtype.kind == "f", piece.dtype.kind == "b"
    whole = not floating or bool((piece == np.rint(piece)).all())
    return Values(float(piece.min()), float(piece.max()), whole, boolean, floating)


def scale_of(values: Values, what: str) -> Scale:
    """Returns how numbers of this range become bytes.

    Raises:
        UserError: it is none of the ranges that images usually have.
    """
    lowest, highest, whole = values.lowest, values.highest, values.whole
    if values.boolean:
        return Scale(0, 255, "the images are of type bool: True was read as 255")
    if whole and lowest >= 0 and highest >= 1 and highest in FEW_LEVELS:
        return Scale(
            0,
            255 / highest,
            f"the pixels are whole numbers from 0 to {highest:g}: they were read as 0 to 255; "
            "are they grey levels?",
        )
    if whole and lowest >= 0 and highest <= 255:
        notice = ""
        if values.floating:
            notice = "the pixels are floats from 0 to 255: they were taken as they are"
        return Scale(0, 1, notice)
    if lowest >= -1e-3 and highest <= 1 + 1e-3:
        return Scale(0, 255, "the pixels are fractions from 0 to 1: they were multiplied by 255")
    if -1 - 1e-3 <= lowest <= -0.9 and 0.9 <= highest <= 1 + 1e-3:
        return Scale(-1, 255 / 2, "the pixels go from -1 to 1: they were read as 0 to 255")
    if lowest >= 0 and highest <= 255:
        return Scale(0, 1, "the pixels are fractions from 0 to 255: they were rounded")
    if whole and lowest >= 0 and 4095 < highest <= 65535:
        return Scale(0, 255 / 65535, "the pixels have 16 bits: 65535 was read as 255")
    raise UserError(
        f"{what} has pixels from {lowest:.6g} to {highest:.6g}: expected 0 to 255, or 0 to 1; "
        "undo what was done to them (a mean that was subtracted, a sign), and save them as uint8"
    )


def _as_bytes(piece: NDArray, scale: Scale) -> NDArray[np.uint8]:
    if piece.dtype == np.uint8 and scale.factor == 1:
        return piece
    numbers = scale.factor * (piece.astype(np.float32) - np.float32(scale.offset))
    return np.clip(np.rint(numbers), 0, 255).astype(np.uint8)


def _grey(piece: NDArray[np.uint8], layout: Layout) -> NDArray[np.uint8]:
    """Returns images as grey bytes (n, height, width); what is transparent is black."""
    images = piece.reshape(-1, *layout.shape)
    if layout.channels == 1:
        return images.reshape(-1, *layout.side)
    if layout.channels_first:
        images = np.moveaxis(images, 1, -1)
    weights = np.array(GREY_WEIGHTS, np.float32)
    grey = np.matmul(images[..., :3].astype(np.float32), weights)
    if layout.channels == 4:
        grey *= images[..., 3] / np.float32(255)
    return np.rint(grey).astype(np.uint8)


def _done_to(
    sources: dict[str, ImageSource],
    layouts: dict[str, Layout],
    kept: dict[str, NDArray[np.bool_]],
) -> list[str]:
    """Lines that say what happened to sizes and colours."""
    notices = []
    other = {layout.side for layout in layouts.values()} - {(SIDE, SIDE)}
    if other:
        sizes = " and ".join(f"{height}x{width}" for height, width in sorted(other))
        notices.append(
            f"the images are {sizes}: each was cut to its ink, scaled to fit 20x20 and centred "
            "in 28x28, as MNIST's are"
        )
    if any(layout.channels > 1 for layout in layouts.values()):
        notices.append("the images have colours: they were turned to grey")
    empty = sum(int((~mask).sum()) for mask in kept.values())
    if empty:
        notices.append(f"{empty:,} images of one colour only were left out")
    return notices
