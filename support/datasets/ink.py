"""Separates ink from paper: where the sheet is, how bright its paper, and how dark the ink on it.

    darkness = ink.darkness(ink.sheet(grey))     # 0: paper, 1: black

All sizes are shares of the picture's, since nobody knows how far the camera was. The functions take
pictures of a few hundred to about a thousand pixels a side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from support.datasets.types import GREY_WEIGHTS

Grey = NDArray[np.float64]
Mask = NDArray[np.bool_]

# A stroke is thinner than this share of the shorter side; what is wider has a paper of its own
# (a shadow, a table).
WIDEST_STROKE = 0.35
# What is wider than this many of the thickest strokes is shadow; what is darker than this share of
# the darkest ink is surely stroke.
SHADOW, DARKEST = 2.5, 0.5
# A picture that is cropped to its ink: how close its border is to one level, and how far from it
# where strokes touch it; the share of the border that is either; the least share of strokes.
CROPPED_PAPER, CROPPED_INK, CROPPED_EVEN, CROPPED_TOUCHES = 0.1, 0.25, 0.85, 0.01
# Edges of a scan are at most this share of the picture, and darker than this share of the paper.
EDGE, EDGE_DARKNESS = 0.1, 0.4
# Noise above this share of white would be taken for ink, and is smoothed away.
TOLERATED_NOISE = 0.04
# Below this difference from its paper, nothing is ink.
LEAST_DARKNESS = 0.1
# Paper is at least this bright.
DARKEST_PAPER = 0.02
# Pixels a side of the small copies that decide on the whole picture.
OVERVIEW, COARSE = 96, 50
# What makes a bright area a sheet on a table: its share of the picture, how much of its rectangle
# it fills, how much of it is paper, how much of the picture's border is table.
SHEET_AREA, SHEET_FILLS, SHEET_PAPER, TABLE_BORDER = 0.06, 0.85, 0.6, 0.55
# It touches a side of the picture where it covers more than this share of it.
SHEET_TOUCHES = 0.05
# By how much a sheet is brighter than its table, and how much of that at once, across its edge.
SHEET_CONTRAST, SHEET_EDGE = 0.2, 0.6


def as_grey(colours: Grey) -> Grey:
    """Turns colours, float (h, w, 3) in [0, 1], to the grey in which the ink differs most.

    That is the direction in which the colours of small things deviate from those around them: red
    on green of the same luminance, or yellow on white, would be invisible in luminance.
    """
    deviations = [_deviation(shrink(channel, COARSE)) for channel in np.moveaxis(colours, 2, 0)]
    deviation = np.stack(deviations, 2).reshape(-1, 3)
    weights = np.linalg.eigh(deviation.T @ deviation)[1][:, -1]
    if weights.sum() < 0:
        weights = -weights
    if np.ptp(weights) < 0.4 * weights.max():
        # Ink without a colour to speak of.
        weights = np.array(GREY_WEIGHTS)
    projected = colours @ (weights / np.abs(weights).sum())
    return projected - min(0, np.minimum(weights, 0).sum() / np.abs(weights).sum())


def shrink(grey: NDArray[np.floating], side: int) -> Grey:
    """Returns a copy of at most about `side` pixels a side; each pixel is a mean."""
    step = max(1, -(-max(grey.shape) // side))
    step = min(step, *grey.shape)
    height, width = (length // step for length in grey.shape)
    cut = grey[: height * step, : width * step]
    return cut.reshape(height, step, width, step).mean((1, 3))


def _deviation(small: Grey) -> Grey:
    """How far each pixel is from the level around it.

    The level is the median over half the picture, which follows gradients and the edges of shadows,
    and which ink does not move.
    """
    from scipy import ndimage

    return small - ndimage.median_filter(small, max(3, min(small.shape) // 2), mode="nearest")


def is_light_on_dark(grey: Grey) -> bool:
    """Whether small things in a picture are brighter than what is around them."""
    return bool((_deviation(shrink(grey, COARSE)) ** 3).sum() > 0)


def without_dark_edges(grey: Grey) -> Grey:
    """Cuts off the dark edges of a scan: rows and columns at the border without any paper."""
    paper = np.median(grey)
    cuts = []
    for lines in (grey, grey[::-1], grey.T, grey.T[::-1]):
        most = int(EDGE * len(lines))
        dark = np.percentile(lines[:most], 90, axis=1) < EDGE_DARKNESS * paper
        cuts.append(int(np.flatnonzero(dark)[-1]) + 1 if dark.any() else 0)
    top, bottom, left, right = cuts
    return grey[top : len(grey) - bottom, left : grey.shape[1] - right]


def sheet(grey: Grey) -> Grey:
    """Cuts out the sheet of paper that lies on something darker.

    Returns:
        float (h, w): the rectangle around the sheet; what in it is not on the sheet is filled with
        the paper next to it. The whole picture if there is no such sheet.
    """
    from scipy import ndimage

    small = ndimage.gaussian_filter(shrink(grey, OVERVIEW), 1)
    if np.ptp(small) < SHEET_CONTRAST:
        return grey
    pieces, _ = ndimage.label(small > otsu(small))
    sizes = np.bincount(pieces.ravel())[1:]
    piece = pieces == 1 + np.argmax(sizes)
    whole, fills = _hull(piece)
    if not _is_sheet(small, piece, whole, fills):
        return grey
    return _cut_out(grey, whole)


def _is_sheet(small: Grey, piece: Mask, whole: Mask, fills: float) -> bool:
    """Whether a bright piece of a picture is a sheet on a table, not a shape in light ink.

    Args:
        small: the picture.
        piece: the bright piece.
        whole: its convex hull.
        fills: how much of its rectangle the hull fills.
    """
    from scipy import ndimage

    sides = whole[0], whole[-1], whole[:, 0], whole[:, -1]
    border = np.concatenate(sides)
    top, bottom, left, right = (side.mean() > SHEET_TOUCHES for side in sides)
    if (top and bottom) or (left and right):
        # From one side to the other: light beside a shadow, which may have ink in it, too.
        return False
    inner = whole & ~ndimage.binary_erosion(whole, iterations=4, border_value=1)
    outer = ndimage.binary_dilation(whole, iterations=4) & ~ndimage.binary_dilation(whole)
    if fills < SHEET_FILLS or not SHEET_AREA < whole.mean() < 1 or not outer.any():
        return False
    inside = ndimage.binary_erosion(whole, iterations=2)
    on_paper = small[inside & piece]
    if not on_paper.size or not inner.any():
        return False
    # Somewhere on it there is ink; on a stroke of light ink there is none.
    has_ink = np.median(on_paper) - small[inside].min() > LEAST_DARKNESS
    contrast = np.median(on_paper) - np.median(small[~whole])
    edge = np.median(small[inner]) - np.median(small[outer])
    paper_share = piece[whole].mean()
    enough_table = 1 - border.mean() > TABLE_BORDER
    sharp = contrast > SHEET_CONTRAST and edge > SHEET_EDGE * contrast
    return bool(has_ink and sharp and enough_table and paper_share > SHEET_PAPER)


def _hull(piece: Mask) -> tuple[Mask, float]:
    """The convex hull of a mask, and the share that it fills of its smallest rectangle."""
    rows, columns = np.nonzero(piece)
    all_rows, all_columns = np.indices(piece.shape)
    whole, lengths = np.ones(piece.shape, bool), []
    for angle in np.radians(np.arange(0, 180, 3)):
        along = np.cos(angle) * columns + np.sin(angle) * rows
        everywhere = np.cos(angle) * all_columns + np.sin(angle) * all_rows
        whole &= (everywhere >= along.min() - 1e-6) & (everywhere <= along.max() + 1e-6)
        lengths.append(np.ptp(along) + 1)
    widths = np.array(lengths)
    smallest = (widths[:30] * widths[30:]).min()
    return whole, float(whole.sum() / smallest)


def _cut_out(grey: Grey, whole: Mask) -> Grey:
    """Cuts a sheet out of the picture and fills what is not on it with the paper next to it."""
    from scipy import ndimage

    zoom = np.array(grey.shape) / whole.shape
    nearest = [
        np.minimum(np.arange(n) / z, m - 1).astype(int)
        for n, z, m in zip(grey.shape, zoom, whole.shape, strict=True)
    ]
    # Its edge, where light and table mix, is left out.
    inside = ndimage.binary_erosion(whole, iterations=2, border_value=1)[np.ix_(*nearest)]
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    area = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    places = ndimage.distance_transform_edt(
        ~inside[area], return_distances=False, return_indices=True
    )
    return grey[area][tuple(places)]


def otsu(values: Grey) -> float:
    """The threshold that separates values into two classes best (Otsu, 1979)."""
    counts, edges = np.histogram(values, 128)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + np.nanargmax(between[:-1])])


def darkness(grey: Grey) -> Grey:
    """How much darker than the paper around it each pixel of a page is: 0 paper, 1 black.

    The light may differ over the page, even at a sharp edge of a shadow: what counts is the share
    of the light that paper gives back there. Ink may be light on dark, too.

    Raises:
        ValueError: it is an even page.
    """
    from scipy import ndimage

    if np.ptp(grey) < DARKEST_PAPER:
        raise ValueError("the page is of one colour")
    sigma = _smoothing(grey)
    page = ndimage.gaussian_filter(grey, sigma) if sigma else grey
    margin = _margin(page)
    if margin:
        page = np.pad(page, margin, constant_values=np.median(_border(page)))
    if is_light_on_dark(page):
        page = 1 - page
    widest = WIDEST_STROKE * min(page.shape)
    dark, noise = _against_paper(page, widest, margin)
    if dark.max() < max(LEAST_DARKNESS, 6 * noise):
        raise ValueError("the page is of one colour")
    # Now that the strokes are seen, soft shadows of a hand that are wider than they are told apart.
    widest = min(widest, SHADOW * _thickest_stroke(dark))
    dark, noise = _against_paper(page, widest, margin)
    return np.where(dark < max(LEAST_DARKNESS / 2, 3 * noise), 0, dark)


def _border(grey: Grey) -> Grey:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _margin(grey: Grey) -> int:
    """How many pixels of paper to add around a picture that is cropped to its ink, or 0.

    Its border is paper of one level in the corners and elsewhere, except where strokes touch it.
    The edge of a shadow or a table would reach a corner.
    """
    border = _border(grey)
    distances = np.abs(border - np.median(border))
    corners = np.abs(grey[[0, 0, -1, -1], [0, -1, 0, -1]] - np.median(border))
    is_paper, is_ink = distances < CROPPED_PAPER, distances > CROPPED_INK
    even = corners.max() < CROPPED_PAPER and (is_paper | is_ink).mean() > CROPPED_EVEN
    if even and is_ink.mean() > CROPPED_TOUCHES and is_paper.mean() > 0.5:
        return max(grey.shape) // 3
    return 0


def _against_paper(page: Grey, widest: float, margin: int) -> tuple[Grey, float]:
    """How much darker than the paper each pixel is, and the deviation of that on paper.

    Args:
        page: dark ink on light paper.
        widest: of strokes, pixels.
        margin: pixels around the picture, which are left out of the result.
    """
    paper = np.maximum(paper_level(page, widest), DARKEST_PAPER)
    inside = slice(margin, -margin or None)
    dark = np.clip(1 - page / paper, 0, 1)[inside, inside]
    # Noise lifts the paper level above the mean of the paper.
    on_paper = dark[dark <= dark.max() / 2]
    middle = np.median(on_paper)
    noise = np.median(np.abs(on_paper - middle))
    return np.clip((dark - middle) / (1 - middle), 0, 1), float(noise)


def _thickest_stroke(dark: Grey) -> float:
    """Diameter, pixels, of the largest disc inside the darkest ink."""
    from scipy import ndimage

    darkest = np.pad(dark > DARKEST * np.percentile(dark, 99.8), 1)
    return 2 * float(ndimage.distance_transform_edt(darkest).max())


def _smoothing(grey: Grey) -> float:
    """Standard deviation, pixels, of the Gaussian that makes noise or dithering tolerable."""
    from scipy import ndimage

    mean = ndimage.uniform_filter(grey, 5)
    variance = ndimage.uniform_filter(grey**2, 5) - mean**2
    # Most of a page is paper: the median sees no edge of ink.
    noise = np.sqrt(max(0, np.median(variance)))
    # A Gaussian divides the deviation of white noise by 2 sqrt(pi) sigma.
    sigma = noise / TOLERATED_NOISE / (2 * np.sqrt(np.pi))
    return float(min(sigma, 0.01 * min(grey.shape))) if sigma > 0.3 else 0.0


def paper_level(grey: Grey, widest: float) -> Grey:
    """The brightness of the paper at each pixel, also under ink whose strokes are at most so wide.

    A morphological closing: everywhere the smallest, over squares that contain the pixel, of the
    brightest value. It fills what is dark and narrower than the square, and follows gradients and
    edges of shadows exactly.
    """
    from scipy import ndimage

    size = max(3, round(widest))
    framed = grey.copy()
    for line in (framed[0], framed[-1], framed[:, 0], framed[:, -1]):
        # Beyond the picture, paper or shadow goes on; a stroke that the border cuts does not.
        half = round(0.8 * len(line)) + 1
        closed = ndimage.grey_closing(np.pad(line, half, mode="edge"), half)
        line[:] = closed[half:-half]
    padded = np.pad(framed, size, mode="edge")
    padded[size:-size, size:-size] = grey
    return ndimage.grey_closing(padded, (size, size))[size:-size, size:-size]
