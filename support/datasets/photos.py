"""Lays pictures of digits out as MNIST's are: bright ink on dark, 20 by 20, centred in 28 by 28.

    shown, images = layout.read(["my7.png", "scans/3.jpg"])

MNIST was made so from other scans: the ink's box scaled to fit 20x20 with its aspect kept, then
moved so that the centre of mass lies in the middle of 28x28 (LeCun, Cortes and Burges, MNIST page).
Pillow reads the files.
"""

import warnings

import numpy as np

from data import PIXELS, SIDE, framed, mass
from support import UserError, files

INK_SIDE = 20
MOST_PIXELS = 50_000_000
# Shares of the range from black to white: below, a page is empty; of the ink's: below, it is paper,
# and above, it surely is ink.
LEAST_CONTRAST, FAINTEST, INK = 0.15, 0.1, 0.3
# How far from the middle, in pixels, the mass of an image lies that is laid out already.
CENTRED = 1.5


def read(paths):
    """Reads pictures of one digit each, of any size, grey or colour, dark on light or otherwise.

    Args:
        paths: of the files.

    Returns:
        Two uint8 arrays (n, 784): small pictures of what was read, and the digits laid out.

    Raises:
        UserError: a file is no picture, too large, or empty.
    """
    pairs = [_read(path) for path in paths]
    return [np.stack(column) for column in zip(*pairs, strict=True)]


def _read(path):
    from PIL import Image, ImageOps

    try:
        with files.open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise ValueError(f"more than {MOST_PIXELS // 10**6} million pixels")
                grey = as_grey(ImageOps.exif_transpose(picture))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: name a picture of a digit") from None
    except (*files.DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "no format that Pillow knows" if unknown else error
        raise UserError(f"{path} cannot be read as a picture ({reason!s:.150})") from error
    negative = Image.fromarray(np.uint8(np.rint(255 * (1 - grey))))
    small = ImageOps.pad(negative, (SIDE, SIDE), color=int(np.median(negative)))
    try:
        return np.asarray(small).reshape(PIXELS), laid_out(grey).reshape(PIXELS)
    except ValueError as error:
        raise UserError(f"{path} shows no digit: {error}") from error


def as_grey(picture):
    """Returns a Pillow image as grey values, float (height, width), 0 black and 1 white; what is
    transparent is white."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture, float)
        if not np.isfinite(values).all():
            raise ValueError("pixels that are not finite")
        whites = (most for most in (1, 255, 65535) if values.max() <= most)
        return np.clip(values / min(whites, default=values.max()), 0, 1)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("L"), float) / 255


def laid_out(grey):
    """Lays one digit out as MNIST's are.

    Args:
        grey: float (height, width) in [0, 1]. What its border is made of is paper, whether dark or
            light, and the rest is ink.

    Returns:
        uint8 (28, 28). An image that is laid out already comes back unchanged, its negative as
        itself.

    Raises:
        ValueError: it is an even page.
    """
    from PIL import Image

    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = np.median(border)
    ink = np.clip(grey - paper if grey.max() - paper > paper - grey.min() else paper - grey, 0, 1)
    if ink.max() < LEAST_CONTRAST:
        raise ValueError("the page is of one colour")
    rows, columns = (np.flatnonzero((ink > 0).any(axis)) for axis in (1, 0))
    fits = np.ptp(rows) < INK_SIDE and np.ptp(columns) < INK_SIDE
    if grey.shape == (SIDE, SIDE) and fits and np.abs(mass(ink) - SIDE / 2).max() <= CENTRED:
        return np.uint8(np.rint(255 * ink))
    ink /= ink.max()
    rows, columns = (np.flatnonzero((ink > INK).any(axis)) for axis in (1, 0))
    box = np.where(ink < FAINTEST, 0, ink)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = np.maximum(1, np.rint(INK_SIDE * np.array(box.shape) / max(box.shape)))
    scaled = Image.fromarray(np.uint8(np.rint(255 * box))).resize((int(width), int(height)))
    if not np.max(scaled):
        raise ValueError("there is nothing but dust")
    scaled = np.asarray(scaled, float) / np.max(scaled)
    return framed(np.uint8(np.rint(255 * scaled)), SIDE / 2)
