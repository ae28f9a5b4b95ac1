"""Separates ink from paper: finds the sheet, the brightness of its paper, the darkness of its ink.

    darkness = ink.darkness(ink.sheet(grey))     # 0: paper, 1: black

All sizes are relative to the picture's, since the distance of the camera is unknown. The functions
take pictures with sides of a few hundred to about a thousand pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from support.datasets.types import GREY_WEIGHTS

Grey = NDArray[np.float64]
Mask = NDArray[np.bool_]

# A stroke is narrower than this share of the picture's shorter side; a wider dark area (a shadow, a
# table) counts as darker paper.
WIDEST_STROKE = 0.35
# A dark area wider than this many of the thickest strokes is a shadow; ink darker than this share
# of the darkest ink certainly belongs to a stroke.
SHADOW, DARKEST = 2.5, 0.5
# A picture that is cropped to its ink: pixels of its border that differ by less than the first
# number from the border's median are paper, and those that differ by more than the second are
# strokes that touch it; the least share of the border that is one of the two; the least share that
# is strokes.
CROPPED_PAPER, CROPPED_INK, CROPPED_EVEN, CROPPED_TOUCHES = 0.1, 0.25, 0.85, 0.01
# The dark edges of a scan: at most this share of the picture, and darker than this share of the
# paper's brightness.
EDGE, EDGE_DARKNESS = 0.1, 0.4
# Noise above this share of white would be taken for ink, so it is smoothed away.
TOLERATED_NOISE = 0.04
# A pixel that differs by less than this from the paper is not ink.
LEAST_DARKNESS = 0.1
# Paper is at least this bright.
DARKEST_PAPER = 0.02
# The sides, in pixels, of the small copies on which the whole picture is judged.
OVERVIEW, COARSE = 96, 50
# A bright area is a sheet on a table if these are large enough: its share of the picture, the share
# of its smallest rectangle that it fills, the share of it that is paper, and the share of the
# picture's border that is table.
SHEET_AREA, SHEET_FILLS, SHEET_PAPER, TABLE_BORDER = 0.06, 0.85, 0.6, 0.55
# A sheet touches a side of the picture if it covers more than this share of that side.
SHEET_TOUCHES = 0.05
# How much brighter a sheet is than its table, and the share of this difference that occurs right at
# its edge.
SHEET_CONTRAST, SHEET_EDGE = 0.2, 0.6


def as_grey(colours: Grey) -> Grey:
    """Converts colours, float (h, w, 3) in [0, 1], to the greyscale that shows the ink best.

    Its weights are the direction in which the colours of small things deviate most from those
    around them: in luminance, red on an equally bright green, or yellow on white, would be
    invisible.
    """
    deviations = [_deviation(shrink(channel, COARSE)) for channel in np.moveaxis(colours, 2, 0)]
    deviation = np.stack(deviations, 2).reshape(-1, 3)
    weights = np.linalg.eigh(deviation.T @ deviation)[1][:, -1]
    if weights.sum() < 0:
        weights = -weights
    if np.ptp(weights) < 0.4 * weights.max():
        # The ink has hardly any colour.
        weights = np.array(GREY_WEIGHTS)
    projected = colours @ (weights / np.abs(weights).sum())
    return projected - min(0, np.minimum(weights, 0).sum() / np.abs(weights).sum())


def shrink(grey: NDArray[np.floating], side: int) -> Grey:
    """Returns a copy with sides of at most about `side` pixels; each pixel is a mean."""
    step = max(1, -(-max(grey.shape) // side))
    step = min(step, *grey.shape)
    height, width = (length // step for length in grey.shape)
    cut = grey[: height * step, : width * step]
    return cut.reshape(height, step, width, step).mean((1, 3))


def _deviation(small: Grey) -> Grey:
    """How far each pixel is from the level around it.

    The level is the median over a window half as large as the picture, which follows gradients and
    the edges of shadows, and which ink does not change.
    """
    from scipy import ndimage

    return small - ndimage.median_filter(small, max(3, min(small.shape) // 2), mode="nearest")


def is_light_on_dark(grey: Grey) -> bool:
    """Whether small things in a picture are brighter than their surroundings."""
    return bool((_deviation(shrink(grey, COARSE)) ** 3).sum() > 0)


def without_dark_edges(grey: Grey) -> Grey:
    """Cuts off the dark edges of a scan: rows and columns at the border that show no paper."""
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
        float (h, w): the rectangle around the sheet, in which everything outside the sheet is
        filled with the nearest paper; the whole picture if there is no such sheet.
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
        fills: the share of its smallest rectangle that the hull fills.
    """
    from scipy import ndimage

    sides = whole[0], whole[-1], whole[:, 0], whole[:, -1]
    border = np.concatenate(sides)
    top, bottom, left, right = (side.mean() > SHEET_TOUCHES for side in sides)
    if (top and bottom) or (left and right):
        # It reaches from one side to the other: a page that is partly in shadow, where there may be
        # ink, too.
        return False
    inner = whole & ~ndimage.binary_erosion(whole, iterations=4, border_value=1)
    outer = ndimage.binary_dilation(whole, iterations=4) & ~ndimage.binary_dilation(whole)
    if fills < SHEET_FILLS or not SHEET_AREA < whole.mean() < 1 or not outer.any():
        return False
    inside = ndimage.binary_erosion(whole, iterations=2)
    on_paper = small[inside & piece]
    if not on_paper.size or not inner.any():
        return False
    # There is ink on a sheet, but none on a stroke of light ink.
    has_ink = np.median(on_paper) - small[inside].min() > LEAST_DARKNESS
    contrast = np.median(on_paper) - np.median(small[~whole])
    edge = np.median(small[inner]) - np.median(small[outer])
    paper_share = piece[whole].mean()
    enough_table = 1 - border.mean() > TABLE_BORDER
    sharp = contrast > SHEET_CONTRAST and edge > SHEET_EDGE * contrast
    return bool(has_ink and sharp and enough_table and paper_share > SHEET_PAPER)


def _hull(piece: Mask) -> tuple[Mask, float]:
    """The convex hull of a mask, and the share of its smallest rectangle that it fills."""
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
    """Cuts a sheet out of the picture and fills everything outside it with the nearest paper."""
    from scipy import ndimage

    zoom = np.array(grey.shape) / whole.shape
    nearest = [
        np.minimum(np.arange(n) / z, m - 1).astype(int)
        for n, z, m in zip(grey.shape, zoom, whole.shape, strict=True)
    ]
    # The edge of the sheet, where paper and table blend, is left out.
    inside = ndimage.binary_erosion(whole, iterations=2, border_value=1)[np.ix_(*nearest)]
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    area = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    places = ndimage.distance_transform_edt(
        ~inside[area], return_distances=False, return_indices=True
    )
    return grey[area][tuple(places)]


def otsu(values: Grey) -> float:
    """The threshold that best separates values into two classes (Otsu, 1979)."""
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

    The light may vary over the page, even abruptly at the edge of a shadow: each pixel is compared
    with the brightness of the paper there. The ink may also be lighter than the paper.

    Raises:
        ValueError: the page is blank.
    """
    from scipy import ndimage

    if np.ptp(grey) < DARKEST_PAPER:
        raise ValueError("the page is blank: take a clearer picture, with dark ink on plain paper")
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
        raise ValueError("the page is blank: take a clearer picture, with dark ink on plain paper")
    # Now that the strokes are known, soft shadows, such as a hand's, are recognized by their width.
    widest = min(widest, SHADOW * _thickest_stroke(dark))
    dark, noise = _against_paper(page, widest, margin)
    return np.where(dark < max(LEAST_DARKNESS / 2, 3 * noise), 0, dark)


def _border(grey: Grey) -> Grey:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _margin(grey: Grey) -> int:
    """How many pixels of paper to add around a picture that is cropped to its ink; 0 for others.

    The border of such a picture is paper of one level, except where strokes touch it, which is in
    no corner. The edge of a shadow or a table would reach a corner.
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
    """How much darker than the paper each pixel is, and the noise level of the paper.

    Args:
        page: dark ink on light paper.
        widest: the greatest width of a stroke, in pixels.
        margin: the pixels that were added around the picture; they are left out of the result.
    """
    paper = np.maximum(paper_level(page, widest), DARKEST_PAPER)
    inside = slice(margin, -margin or None)
    dark = np.clip(1 - page / paper, 0, 1)[inside, inside]
    # Noise raises the paper level above the mean of the paper.
    on_paper = dark[dark <= dark.max() / 2]
    middle = np.median(on_paper)
    noise = np.median(np.abs(on_paper - middle))
    return np.clip((dark - middle) / (1 - middle), 0, 1), float(noise)


def _thickest_stroke(dark: Grey) -> float:
    """The diameter, in pixels, of the largest disc that fits into the darkest ink."""
    from scipy import ndimage

    darkest = np.pad(dark > DARKEST * np.percentile(dark, 99.8), 1)
    return 2 * float(ndimage.distance_transform_edt(darkest).max())


def _smoothing(grey: Grey) -> float:
    """The sigma, in pixels, of the Gaussian that makes noise or dithering tolerable; 0: none."""
    from scipy import ndimage

    mean = ndimage.uniform_filter(grey, 5)
    variance = ndimage.uniform_filter(grey**2, 5) - mean**2
    # Most of a page is paper, so the edges of ink do not affect the median.
    noise = np.sqrt(max(0, np.median(variance)))
    # A Gaussian divides the standard deviation of white noise by 2 sqrt(pi) sigma.
    sigma = noise / TOLERATED_NOISE / (2 * np.sqrt(np.pi))
    return float(min(sigma, 0.01 * min(grey.shape))) if sigma > 0.3 else 0.0


def paper_level(grey: Grey, widest: float) -> Grey:
    """The brightness of the paper at each pixel, also under strokes at most `widest` pixels wide.

    This is a morphological closing: the minimum, over all squares that contain the pixel, of the
    brightest value in the square. It fills dark areas narrower than the square, and follows
    gradients and the edges of shadows exactly.
    """
    from scipy import ndimage

    size = max(3, round(widest))
    framed = grey.copy()
    for line in (framed[0], framed[-1], framed[:, 0], framed[:, -1]):
        # Beyond the border, paper or shadow continues, but a stroke that the border cuts does not.
        half = round(0.8 * len(line)) + 1
        closed = ndimage.grey_closing(np.pad(line, half, mode="edge"), half)
        line[:] = closed[half:-half]
    padded = np.pad(framed, size, mode="edge")
    padded[size:-size, size:-size] = grey
    return ndimage.grey_closing(padded, (size, size))[size:-size, size:-size]
