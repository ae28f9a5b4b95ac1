"""Finds images in PNGs by their pixels, so that tests see what a user sees."""

import itertools

import numpy as np
from matplotlib import image
from scipy.signal import fftconvolve

# How much an image and its copy in a picture may differ by rounding: mean square of intensities.
TOLERANCE = 4.0


def grey(path):
    """Returns a picture in greyscale, float (height, width), 0 black to 255 white."""
    return 255 * image.imread(path)[..., :3].mean(axis=-1)


def place(picture, digit, scale=2):
    """Returns the row and column of the top left pixel of an image that a picture shows.

    The image is shown dark on white; the first place counts. Fails if the image is not shown.

    Args:
        picture: as `grey` returns it.
        digit: uint8 (784,) or (28, 28), bright on dark.
        scale: pixels of the picture for each pixel of the image.
    """
    row, column, error = _best(picture, digit, scale)
    assert error < TOLERANCE, f"not shown: {error:.1f} at {row}, {column}"
    return np.array([row, column])


def is_shown(picture, digit, scale=2):
    """Whether an image is shown anywhere in a picture."""
    return _best(picture, digit, scale)[2] < TOLERANCE


def _best(picture, digit, scale):
    digit = 255.0 - np.reshape(digit, (28, 28)).astype(float)
    assert digit.std() > 10, "a blank image is everywhere"
    # Every pixel of the image is a square of pixels in the picture: one of each is enough.
    small = picture[::scale, ::scale]
    products = fftconvolve(small, digit[::-1, ::-1], mode="valid")
    squares = fftconvolve(small**2, np.ones((28, 28)), mode="valid")
    errors = (squares - 2 * products + (digit**2).sum()) / digit.size
    # If it is shown twice, the first place counts.
    row, column = scale * np.argwhere(errors <= errors.min() + 0.01)[0]
    # That pixel may be anywhere in its square; the corner is where the whole image fits best.
    large = np.kron(digit, np.ones((scale, scale)))
    corners = []
    for top, left in itertools.product(
        range(max(0, row - scale + 1), row + 1), range(max(0, column - scale + 1), column + 1)
    ):
        part = picture[top : top + len(large), left : left + len(large)]
        if part.shape == large.shape:
            corners.append((np.mean((part - large) ** 2), top, left))
    error, row, column = min(corners)
    return row, column, error


def triangles(path):
    """Returns the tips of the coloured triangles in a picture, (n, 2), from top to bottom.

    A tip is the row where the triangle ends and the column of its middle.
    """
    from scipy import ndimage

    from support.display import plots

    colour = np.array([int(plots.ACCENT[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    mask = np.abs(image.imread(path)[..., :3] - colour).max(axis=-1) < 0.02
    labels, count = ndimage.label(mask)
    return np.array(ndimage.center_of_mass(mask, labels, range(1, count + 1)))
