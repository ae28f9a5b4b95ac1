"""Reads images of any number type and size, piece by piece, and turns them into 28x28 bytes.

Memory holds only the resulting bytes and one piece of the input. If values must be scaled, a first
pass finds their range, and a second one scales them.
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

# How many numbers one piece of images may hold.
PIECE = 1 << 21
SMALLEST_SIDE, LARGEST_SIDE = 4, 4096
# An image of another size than 28x28 takes about a millisecond to preprocess.
MOST_PREPROCESSED = 200_000
# If the largest of whole-number pixel values is one of these, they are taken for grey levels of 1
# to 6 bits; 16 is the largest value in scikit-learn's digits.
FEW_LEVELS = (1, 3, 7, 15, 16, 31, 63)
# The share of images that may be blank before all are refused.
FEW = 0.01


class ImageSource(NamedTuple):
    """The images of one part of a data set, which can be read more than once.

    Attributes:
        what: the file or array, for messages.
        images: how many there are; None if the file does not say.
        shape: the shape of one image.
        kind: the type of the numbers in the file, for messages.
        pieces: a function that returns an iterator over arrays (k, *shape).
    """

    what: str
    images: int | None
    shape: tuple[int, ...]
    kind: str
    pieces: Callable[[], Iterator[NDArray]]


class Layout(NamedTuple):
    """Which axes of an image are its rows, columns and colour channels.

    Attributes:
        shape: the shape of one image without axes of length 1.
        side: (height, width).
        channels: 1, 3 or 4.
        channels_first: whether the channels come before the rows.
    """

    shape: tuple[int, ...]
    side: tuple[int, int]
    channels: int = 1
    channels_first: bool = False


class Values(NamedTuple):
    """The range of the pixel values of images.

    Attributes:
        lowest, highest: the smallest and the largest value.
        whole: whether all values are whole numbers.
        boolean: whether all values are of type bool.
        floating: whether some values are of a floating-point type.
    """

    lowest: float
    highest: float
    whole: bool
    boolean: bool
    floating: bool

    def joined(self, other: Values) -> Values:
        """Returns the range of both together."""
        return Values(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.whole and other.whole,
            self.boolean and other.boolean,
            self.floating or other.floating,
        )


class Scale(NamedTuple):
    """How numbers become bytes, `factor * (number - offset)` rounded, and a notice that says so."""

    offset: float
    factor: float
    notice: str = ""


class Images(NamedTuple):
    """The images of all parts as bytes.

    Attributes:
        parts: part -> uint8 (n, 784).
        kept: part -> which of the images in the source these are, if some may be left out.
        values: the range of the pixel values in the source.
        notices: lines about what was done.
    """

    parts: dict[str, NDArray[np.uint8]]
    kept: dict[str, NDArray[np.bool_]]
    values: Values
    notices: list[str]


def layout_of(shape: tuple[int, ...]) -> Layout | None:
    """Returns the layout of an image of this shape; None if no image has it."""
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
        transposed: whether to exchange the rows and columns of each image.

    Raises:
        UserError: shapes or values are not those of images, or there are too many images.
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
            "another height and width, with 1, 3 or 4 colour channels"
        )
    small = layout.side == (SIDE, SIDE)
    most = MOST_IMAGES if small else MOST_PREPROCESSED
    if source.images is not None and source.images > most:
        height, width = layout.side
        raise UserError(
            f"{source.what} has {source.images:,} images of {height}x{width}: "
            f"expected at most {most:,}; use fewer images"
        )
    return layout


def _first_pass(source: ImageSource, layout: Layout) -> tuple[NDArray[np.uint8] | None, Values]:
    """Reads all numbers once.

    Returns:
        The images, uint8 (n, 784), if they are greyscale, 28x28 and whole numbers from 0 to 255,
        else None; and the range of their values.
    """
    storing = layout.side == (SIDE, SIDE) and layout.channels == 1
    rows = _Rows(source.images)
    found: Values | None = None
    count = 0
    for piece in source.pieces():
        count += len(piece)
        if count > MOST_IMAGES:
            raise UserError(f"{source.what} has more than {MOST_IMAGES:,} images: use fewer images")
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
        The images, uint8 (k, 784), and which of the n images in the source they are, bool (n,):
        blank images of another size than 28x28 are left out.
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
                "28x28: use fewer images"
            )
    empty = len(kept) - sum(kept)
    if empty > max(5, FEW * len(kept)):
        raise UserError(
            f"{source.what}: {empty:,} of {len(kept):,} images are blank (a single colour): "
            "expected bright ink on a dark background, or dark on bright; remove the blank images"
        )
    return rows.all(), np.array(kept, bool)


class _Rows:
    """Collects images as they are read, in one array if their number is known."""

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
        raise UserError(f"{what} has pixels that are NaN or infinite: expected values 0 to 255")
    floating, boolean = piece.dtype.kind == "f", piece.dtype.kind == "b"
    whole = not floating or bool((piece == np.rint(piece)).all())
    return Values(float(piece.min()), float(piece.max()), whole, boolean, floating)


def scale_of(values: Values, what: str) -> Scale:
    """Returns how numbers of this range become bytes.

    Raises:
        UserError: it is not a range that images usually have.
    """
    lowest, highest, whole = values.lowest, values.highest, values.whole
    if values.boolean:
        return Scale(0, 255, "the images are of type bool: True was read as 255")
    if whole and lowest >= 0 and highest >= 1 and highest in FEW_LEVELS:
        return Scale(
            0,
            255 / highest,
            f"the pixel values are whole numbers from 0 to {highest:g}: they were taken for grey "
            "levels and scaled to 0 to 255; check that this is right",
        )
    if whole and lowest >= 0 and highest <= 255:
        notice = ""
        if values.floating:
            notice = "the pixel values are floats from 0 to 255: they were used unchanged"
        return Scale(0, 1, notice)
    if lowest >= -1e-3 and highest <= 1 + 1e-3:
        return Scale(0, 255, "the pixel values are from 0 to 1: they were multiplied by 255")
    if -1 - 1e-3 <= lowest <= -0.9 and 0.9 <= highest <= 1 + 1e-3:
        return Scale(-1, 255 / 2, "the pixel values are from -1 to 1: they were scaled to 0 to 255")
    if lowest >= 0 and highest <= 255:
        return Scale(0, 1, "the pixel values are fractions from 0 to 255: they were rounded")
    if whole and lowest >= 0 and 4095 < highest <= 65535:
        return Scale(0, 255 / 65535, "the pixel values have 16 bits: 65535 was read as 255")
    raise UserError(
        f"{what} has pixel values from {lowest:.6g} to {highest:.6g}: expected 0 to 255 or 0 to 1; "
        "undo what was done to them (such as subtracting the mean), and save the images as uint8"
    )


def _as_bytes(piece: NDArray, scale: Scale) -> NDArray[np.uint8]:
    if piece.dtype == np.uint8 and scale.factor == 1:
        return piece
    numbers = scale.factor * (piece.astype(np.float32) - np.float32(scale.offset))
    return np.clip(np.rint(numbers), 0, 255).astype(np.uint8)


def _grey(piece: NDArray[np.uint8], layout: Layout) -> NDArray[np.uint8]:
    """Returns images as greyscale bytes (n, height, width); transparent pixels become black."""
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
    """Returns lines that say how sizes and colours were changed."""
    notices = []
    other = {layout.side for layout in layouts.values()} - {(SIDE, SIDE)}
    if other:
        sizes = " and ".join(f"{height}x{width}" for height, width in sorted(other))
        notices.append(
            f"the images are {sizes}: each was cropped to its ink, scaled to fit 20x20 and centred "
            "in 28x28, as in MNIST"
        )
    if any(layout.channels > 1 for layout in layouts.values()):
        notices.append("the images have colours: they were converted to greyscale")
    empty = sum(int((~mask).sum()) for mask in kept.values())
    if empty:
        notices.append(f"blank images (a single colour) that were left out: {empty:,}")
    return notices
