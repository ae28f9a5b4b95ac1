"""Finds the digits on a page, in reading order, without printed lines and frames, dust and hairs.

    for digit in segmentation.digits(ink.darkness(grey)):
        digit.area, digit.ink                   # where it is on the page, and its ink alone

As in ink.py, sizes are relative to those of the page or of the strokes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.datasets.ink import LEAST_DARKNESS, Grey, Mask

# Printed lines are thinner than the first share of the page's shorter side, and longer than the
# second share of the page in their direction.
LINE_THICKNESS, LINE_LENGTH = 0.02, 0.6
# Gaps in a line, where strokes cross it, are at most this share of the page.
LINE_GAP = 0.4
# A line must be visible along at least the first share of the page; pieces longer than the second
# share determine the slope.
LINE_COVER, SLOPE_LENGTH = 0.4, 0.15
# Ink this many times as dark as the lines does not belong to them.
LINE_LEVEL = 1.6
# A frame, as shares of the page: its least size, and the greatest thickness of its lines.
FRAME_SIZE, FRAME_LINE = 0.08, 0.03
# A frame, as shares of its own size: the greatest thickness of its lines, how far its sides may be
# from straight, how much of each side must be visible, and the least height of its content.
FRAME_THICKNESS, FRAME_BAND, FRAME_COVER, FRAME_CONTENT = 0.2, 0.12, 0.7, 0.3
# What is lower, lighter or thinner than these shares of the largest digit is not a digit.
LEAST_HEIGHT, LEAST_LEVEL, LEAST_THICKNESS = 0.4, 0.35, 0.4
# Pieces of digits, as shares of the height of the tallest piece: a smaller piece than the first is
# dust; a lower one than the second is not a digit of its own; how far beside the rest of its digit
# a piece may be, and how far above or below it.
LEAST_PART, PART, GAP_BESIDE, GAP_ABOVE = 0.12, 0.45, 0.15, 0.25
# How wide a crack down the middle of a digit may be, and how wide that digit may be.
CRACK, WIDEST_DIGIT = 0.05, 0.8
MOST_PIECES = 500
# A line thinner than this share of a digit's strokes is a hair that lies across the digit.
HAIR = 0.35
# Ink darker than this share of a digit's own darkness belongs to its strokes.
STROKE = 0.4


class Digit(NamedTuple):
    """One digit on a page.

    Attributes:
        area: its rows and columns, a pair of slices.
        ink: float, in the shape of the area: 0 paper, 1 ink; nothing but this digit.
    """

    area: tuple[slice, slice]
    ink: Grey


def digits(dark: Grey) -> list[Digit]:
    """Finds the digits on a page, in reading order.

    Args:
        dark: float (h, w): 0 paper, 1 black, as `ink.darkness` returns it.

    Raises:
        ValueError: no digit was found.
    """
    from scipy import ndimage

    ink = dark > LEAST_DARKNESS
    printed = [_lighter(lines, dark) for lines in (page_lines(ink), frame_lines(ink))]
    kept = ink & ~printed[0] & ~printed[1]
    # If there are only lines on a page, they may be what was written.
    if kept.any():
        ink = kept
    dark = np.where(ink, dark, 0)
    strokes, count = ndimage.label(_strokes(dark), np.ones((3, 3)))
    if not count:
        raise ValueError(
            "no strokes were found: take a clearer picture, with dark ink on plain paper"
        )
    return [_cut(dark, strokes, group) for group in _in_reading_order(_grouped(strokes))]


def page_lines(ink: Mask) -> Mask:
    """The lines of ruled and squared paper, which run across the page."""
    return _long_lines(ink) | _long_lines(ink.T).T


def _lighter(lines: Mask, dark: Grey) -> Mask:
    """Lines without what is much darker than they are, which is ink on top of them."""
    if not lines.any():
        return lines
    # Lines have blurred edges: three quarters of their pixels are lighter than their middle.
    return lines & (dark < LINE_LEVEL * np.percentile(dark[lines], 75))


def _long_lines(ink: Mask) -> Mask:
    """Thin lines that run from left to right over most of a page, with any small slope or bend."""
    from scipy import ndimage

    width, side = ink.shape[1], min(ink.shape)
    thin = _thin(ink, max(2, round(LINE_THICKNESS * side)))
    # Rows are added above and below for lines that leave the page there.
    margin = round(0.2 * width)
    thin = np.pad(thin, ((margin, margin), (0, 0)))
    slope = _slope(thin)
    level = _sheared(thin, -slope)
    joined = _widened(level, max(3, side // 100), 3)
    joined = _closed_along_rows(joined, round(LINE_GAP * width))
    labels, _ = ndimage.label(joined, np.ones((3, 3)))
    lines = np.zeros(level.shape, bool)
    for number, area in enumerate(ndimage.find_objects(labels), 1):
        piece = labels[area] == number
        long = area[1].stop - area[1].start > LINE_LENGTH * width
        if long and (piece & level[area]).any(0).sum() > LINE_COVER * width:
            lines[area] |= piece
    return (_sheared(lines, slope) & thin)[margin:-margin]


def _slope(thin: Mask) -> float:
    """The median slope of almost horizontal lines, weighted by their length, in rows per column."""
    from scipy import ndimage

    labels, _ = ndimage.label(_widened(thin, 3, 3), np.ones((3, 3)))
    slopes, lengths = [0.0], [1]
    for number, area in enumerate(ndimage.find_objects(labels), 1):
        length = area[1].stop - area[1].start
        if length > SLOPE_LENGTH * thin.shape[1]:
            rows, columns = np.nonzero(labels[area] == number)
            slopes.append(np.polyfit(columns, rows, 1)[0])
            lengths.append(length)
    order = np.argsort(slopes)
    middle = np.searchsorted(np.cumsum(np.array(lengths)[order]), sum(lengths) / 2)
    return float(np.array(slopes)[order][middle])


def _sheared(mask: Mask, slope: float) -> Mask:
    """Moves each column down by `slope` times its distance from the middle one, wrapping around."""
    height, width = mask.shape
    shifts = np.rint(slope * (np.arange(width) - width // 2)).astype(int)
    rows = (np.arange(height)[:, None] - shifts) % height
    return mask[rows, np.arange(width)]


def _thin(ink: Mask, most: int) -> Mask:
    """The ink that is at most `most` pixels high: lines, not the strokes that cross them."""
    from scipy import ndimage

    high = ndimage.grey_opening(np.uint8(ink), (most + 1, 1), mode="constant")
    return ink & (high == 0)


def _widened(mask: Mask, height: int, width: int) -> Mask:
    """Widens a mask by half of `height` up and down, and by half of `width` to both sides."""
    from scipy import ndimage

    return ndimage.maximum_filter(np.uint8(mask), (height, width)).astype(bool)


def _closed_along_rows(mask: Mask, gap: int) -> Mask:
    """Fills gaps of at most `gap` pixels in rows."""
    from scipy import ndimage

    padded = np.pad(mask, ((0, 0), (gap, gap)), mode="edge")
    values = ndimage.grey_closing(np.uint8(padded), (1, gap + 1))
    return values[:, gap:-gap].astype(bool) if gap else mask


def frame_lines(ink: Mask) -> Mask:
    """The lines of boxes on forms, one or several side by side, without what is in the boxes."""
    from scipy import ndimage

    labels, _ = ndimage.label(ink, np.ones((3, 3)))
    lines = np.zeros(ink.shape, bool)
    for number, area in enumerate(ndimage.find_objects(labels), 1):
        piece = labels[area] == number
        if min(piece.shape) > FRAME_SIZE * min(ink.shape):
            found = _frame_lines(piece, round(FRAME_LINE * min(ink.shape)))
            if found.any() and _has_content(ink[area] & ~found):
                lines[area] |= found
    return lines


def _has_content(inside: Mask) -> bool:
    """Whether a frame has content, not only ink near its edge: an angular 0 has none."""
    height, width = (round(FRAME_BAND * length) for length in inside.shape)
    rows = inside[height : len(inside) - height, width : inside.shape[1] - width].any(1)
    return bool(rows.mean() > FRAME_CONTENT)


def _frame_lines(piece: Mask, thickest: int) -> Mask:
    """The lines of a piece of ink, at most about `thickest` thick, if they frame it; else none."""
    from scipy import ndimage

    lines = np.zeros(piece.shape, bool)
    most = max(5, min(thickest, round(FRAME_THICKNESS * min(piece.shape))))
    for view, found in ((piece, lines), (piece.T, lines.T)):
        height, width = view.shape
        flat = _thin(view, most)
        joined = _widened(flat, 3, 3)
        band = max(2, round(FRAME_BAND * height))
        if min(edge.any(0).mean() for edge in (joined[:band], joined[-band:])) < FRAME_COVER:
            return np.zeros(piece.shape, bool)
        numbers, _ = ndimage.label(joined, np.ones((3, 3)))
        for number, area in enumerate(ndimage.find_objects(numbers), 1):
            if area[1].stop - area[1].start > FRAME_COVER * width:
                found[area] |= (numbers[area] == number) & flat[area]
    return lines


def _strokes(dark: Grey) -> Mask:
    """The strokes of digits: the darker ink of each piece, without pieces that are too light."""
    from scipy import ndimage

    labels, count = ndimage.label(dark > 0, np.ones((3, 3)))
    strokes = np.zeros(dark.shape, bool)
    if not count:
        return strokes
    energies = ndimage.sum_labels(dark**2, labels, np.arange(1, count + 1))
    boxes = ndimage.find_objects(labels)
    strongest = np.argsort(-energies)[:MOST_PIECES]
    least = 0.0
    for index in strongest:
        area = boxes[index]
        piece = labels[area] == index + 1
        level = np.percentile(dark[area][piece], 90)
        # The first piece is the strongest and sets the limit.
        least = least or LEAST_LEVEL * level
        if level >= least:
            strokes[area] |= piece & (dark[area] > STROKE * level)
    return strokes


class _Piece(NamedTuple):
    """A connected piece of stroke: its number among the labels, its box, and its thickness."""

    number: int
    top: int
    bottom: int
    left: int
    right: int
    thickness: float

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def size(self) -> int:
        return max(self.height, self.right - self.left)


def _grouped(labels: NDArray[np.int32]) -> list[list[_Piece]]:
    """Joins pieces of strokes into digits; leaves out what is too small or too thin for a digit."""
    pieces = _pieces(labels)
    main = max(pieces, key=lambda piece: piece.size * piece.thickness)
    pieces = [p for p in pieces if p.thickness > LEAST_THICKNESS * main.thickness]
    tallest = max(piece.height for piece in pieces)
    pieces = [p for p in pieces if p.size > LEAST_PART * tallest]
    groups: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.size):
        near = [group for group in groups if _belongs(piece, _box(group), tallest)]
        groups = [group for group in groups if group not in near]
        groups.append([piece] + [one for group in near for one in group])
    tallest = max(_box(group).height for group in groups)
    return [group for group in groups if _box(group).height > LEAST_HEIGHT * tallest]


def _pieces(labels: NDArray[np.int32]) -> list[_Piece]:
    """The largest connected pieces of stroke."""
    from scipy import ndimage

    pieces = []
    boxes = [box for box in enumerate(ndimage.find_objects(labels), 1) if box[1]]
    boxes.sort(key=lambda box: -labels[box[1]].size)
    for number, (rows, columns) in boxes[:MOST_PIECES]:
        mask = np.pad(labels[rows, columns] == number, 1)
        # Across a strip, the mean distance to its edge is a quarter of its width.
        thickness = 4 * ndimage.distance_transform_edt(mask)[mask].mean()
        pieces.append(_Piece(number, rows.start, rows.stop, columns.start, columns.stop, thickness))
    return pieces


def _box(group: list[_Piece]) -> _Piece:
    """The smallest box around pieces."""
    tops, bottoms, lefts, rights = zip(*(piece[1:5] for piece in group), strict=True)
    return _Piece(0, min(tops), max(bottoms), min(lefts), max(rights), 0.0)


def _belongs(piece: _Piece, box: _Piece, tallest: int) -> bool:
    """Whether a piece is part of the digit in a larger box."""
    down = max(piece.top, box.top) - min(piece.bottom, box.bottom)
    across = max(piece.left, box.left) - min(piece.right, box.right)
    narrower = min(piece.right - piece.left, box.right - box.left)
    overlap = -across > narrower / 2
    if piece.height < PART * tallest <= box.height and not overlap:
        # Too small for a digit of its own: the bar of a 5, the end of a broken stroke.
        return max(down, across) < GAP_BESIDE * tallest
    if overlap:
        return down < GAP_ABOVE * tallest
    # Both as large as digits, and side by side: two digits, or the halves of one in a broken scan.
    together = max(piece.right, box.right) - min(piece.left, box.left)
    return across < CRACK * tallest and down < 0 and together < WIDEST_DIGIT * tallest


def _in_reading_order(groups: list[list[_Piece]]) -> list[list[_Piece]]:
    """Sorts digits into rows from top to bottom, and each row from left to right."""
    rows: list[list[list[_Piece]]] = []
    for group in sorted(groups, key=lambda group: _box(group).top + _box(group).bottom):
        box = _box(group)
        first = _box(rows[-1][0]) if rows else None
        if first and (box.top + box.bottom) / 2 < first.bottom:
            rows[-1].append(group)
        else:
            rows.append([group])
    return [g for row in rows for g in sorted(row, key=lambda group: _box(group).left)]


def _cut(dark: Grey, labels: NDArray[np.int32], group: list[_Piece]) -> Digit:
    """Cuts a digit out of the page."""
    from scipy import ndimage

    box = _box(group)
    thickness = max(piece.thickness for piece in group)
    margin = 2 + round(thickness / 4)
    rows = slice(max(0, box.top - margin), box.bottom + margin)
    columns = slice(max(0, box.left - margin), box.right + margin)
    strokes = np.isin(labels[rows, columns], [piece.number for piece in group])
    others = (labels[rows, columns] > 0) & ~strokes
    strokes = _without_hairs(strokes, thickness)
    around = ndimage.binary_dilation(strokes, iterations=margin) & ~others
    part = dark[rows, columns]
    level = np.percentile(part[strokes], 75)
    return Digit((rows, columns), np.clip(part / level, 0, 1) * around)


def _without_hairs(strokes: Mask, thickness: float) -> Mask:
    """Removes hairs that cross a digit: lines much thinner than its strokes that lead away."""
    from scipy import ndimage

    radius = round(HAIR * thickness / 2)
    if radius < 1:
        return strokes
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = rows**2 + columns**2 <= radius**2 + 1
    padded = np.pad(strokes, radius)
    thick = ndimage.binary_opening(padded, disc)[radius:-radius, radius:-radius]
    if not thick.any():
        return strokes
    return strokes & (ndimage.distance_transform_edt(~thick) <= 2 * radius)
