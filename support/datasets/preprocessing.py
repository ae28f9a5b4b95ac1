"""Turns a greyscale picture of one digit into 28x28, as in MNIST: bright on dark, 20x20, centred.

    image = preprocessing.preprocess(grey)        # float (height, width) -> uint8 (28, 28)

MNIST was made from scans in this way: the box around the ink was scaled to fit 20x20 with its
aspect ratio kept, then moved so that its centre of mass is in the middle of 28x28 (LeCun, Cortes
and Burges, MNIST page).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from support.datasets.types import SIDE

INK_SIDE = 20
# A page with less contrast than the first, as a share of the range from black to white, is blank.
# As shares of the ink's own range, what is below the second is paper, and above the third, ink.
LEAST_CONTRAST, FAINTEST, INK = 0.15, 0.1, 0.3
# In pixels of 28x28: strokes thinner than the first, which only 1 in 100 digits of MNIST has, are
# made as thick as the second.
THINNEST, THICKENED = 1.6, 2.2
# How far from the middle, in pixels, the centre of mass of a preprocessed image may be.
CENTRED = 1.5


def preprocess(grey: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Turns a picture of one digit into 28x28, as in MNIST.

    Args:
        grey: float (height, width) in [0, 1]. What is like its border is paper, whether dark or
            light, and the rest is ink.

    Returns:
        uint8 (28, 28). An image that is preprocessed already is returned unchanged, and its
        negative is inverted.

    Raises:
        ValueError: the page is blank.
    """
    ink = _from_border(grey)
    if ink.max() < LEAST_CONTRAST:
        raise ValueError("the page is blank: take a clearer picture, with dark ink on plain paper")
    done = if_preprocessed(grey)
    if done is not None:
        return done
    return from_ink(ink / ink.max())


def if_preprocessed(grey: NDArray[np.floating]) -> NDArray[np.uint8] | None:
    """Returns an image that is preprocessed already as uint8 (28, 28), and None for any other.

    Args:
        grey: float (h, w) in [0, 1]; may be the negative of a preprocessed image.
    """
    ink = _from_border(grey)
    if grey.shape != (SIDE, SIDE) or ink.max() < LEAST_CONTRAST:
        return None
    rows, columns = (np.flatnonzero((ink > 0).any(axis)) for axis in (1, 0))
    if max(np.ptp(rows), np.ptp(columns)) >= INK_SIDE:
        return None
    if np.abs(centre_of_mass(ink) - SIDE / 2).max() > CENTRED:
        return None
    return np.rint(255 * ink).astype(np.uint8)


def _from_border(grey: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far each pixel is from the paper at the border, in the direction of the ink."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = np.median(border)
    if grey.max() - paper > paper - grey.min():
        return np.clip(grey - paper, 0, 1)
    return np.clip(paper - grey, 0, 1)


def from_ink(ink: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Turns the ink of one digit, float (height, width), 0 paper to 1 ink, into 28x28.

    Raises:
        ValueError: there is hardly any ink.
    """
    from PIL import Image

    box = _box(np.where(ink < FAINTEST, 0, ink), ink > INK)
    box = _thickened(box)
    height, width = np.maximum(1, np.rint(INK_SIDE * np.array(box.shape) / max(box.shape)))
    picture = Image.fromarray(np.rint(255 * box).astype(np.uint8))
    scaled = np.asarray(picture.resize((int(width), int(height))), float)
    if not scaled.max():
        raise ValueError(
            "no strokes were found: take a clearer picture, with dark ink on plain paper"
        )
    brightest = np.rint(255 * (scaled / scaled.max())).astype(np.uint8)
    return centre_by_mass(brightest, SIDE / 2)


def _box(ink: NDArray[np.floating], inside: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Cuts the smallest box that contains all of `inside` out of the ink."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _thickened(box: NDArray[np.floating]) -> NDArray[np.floating]:
    """Makes strokes of thin pens as thick as thin strokes in MNIST; others stay as they are."""
    from scipy import ndimage

    strokes = np.pad(box > INK, 1)
    pixel = max(box.shape) / INK_SIDE
    # Across a strip, the mean distance to its edge is a quarter of its width.
    thickness = 4 * ndimage.distance_transform_edt(strokes)[strokes].mean()
    if thickness >= THINNEST * pixel:
        return box
    radius = (THICKENED * pixel - thickness) / 2
    space = int(np.ceil(radius)) + 1
    wide = np.pad(box, space)
    distance = ndimage.distance_transform_edt(wide <= INK)
    thick = np.maximum(wide, np.clip(radius + 0.5 - distance, 0, 1))
    return _box(thick, thick > INK)


def centre_by_mass(image: NDArray[np.uint8], middle: float | NDArray) -> NDArray[np.uint8]:
    """Returns an image in 28x28 with its centre of mass at `middle`, as far as it fits.

    Args:
        image: uint8 (height, width), at most 28x28.
        middle: row and column, or one number for both, in pixels from the first pixel.
    """
    frame, sides = np.zeros((SIDE, SIDE), np.uint8), np.array(image.shape)
    top, left = np.clip(np.rint(middle - centre_of_mass(image)).astype(int), 0, SIDE - sides)
    frame[top : top + sides[0], left : left + sides[1]] = image
    return frame


def centre_of_mass(image: NDArray) -> NDArray[np.float64]:
    """The centre of mass of an image, (row, column), in pixels from its first pixel."""
    from scipy import ndimage

    return np.array(ndimage.center_of_mass(image))
