"""matplotlib pictures from arrays, in one style; nothing about models.

Every function takes uint8 images (n, 784) or (n, 28, 28), dark ink on white paper, writes one PNG
whole or not at all.
"""

import os
import sys

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from flags import UserError, write_whole

SIDE = 28
GAP = 3
STYLE = {"font.size": 9, "savefig.dpi": 150, "figure.facecolor": "white"}


def require_screen():
    """Raises `UserError` where `--show` could open no window."""
    from matplotlib import pyplot

    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if (sys.platform.startswith("linux") and not screen) or pyplot.get_backend().lower() == "agg":
        raise UserError(
            "--show needs a screen and a window toolkit (tkinter, for one): leave the flag away"
        )


def show(paths):
    """Opens one window for each picture file and returns when all are closed."""
    from matplotlib import pyplot

    for path in paths:
        pixels = pyplot.imread(path)
        size = pixels.shape[1] / STYLE["savefig.dpi"], pixels.shape[0] / STYLE["savefig.dpi"]
        pyplot.figure(os.path.basename(path), figsize=size).figimage(pixels)
    pyplot.show()


def grid(path, images, columns, title):
    """Draws digits row by row.

    Args:
        path: the PNG to write.
        images: as the module says.
        columns: digits in a row.
        title: one line above.
    """
    _draw(path, _mosaic(images, columns), title)


def reconstructions(path, originals, reconstructed, columns, title):
    """Draws rows of originals, each above the row of its reconstructions."""
    rows = []
    for first in range(0, len(originals), columns):
        rows += [originals[first : first + columns], reconstructed[first : first + columns]]
    names = ["original", "reconstructed"] * (len(rows) // 2)
    _draw(path, np.vstack([_mosaic(row, columns) for row in rows]), title, names)


def extremes(path, groups, title):
    """Draws groups of digits over their reconstructions, with a number under each pair.

    Args:
        groups: a list of (name, originals, reconstructed, numbers), equally long.
    """
    rows, names, numbers = [], [], []
    columns = len(groups[0][1])
    for name, originals, reconstructed, values in groups:
        space = np.zeros((SIDE // 2, columns * (SIDE + GAP)), np.uint8)
        rows += [_mosaic(originals, columns), _mosaic(reconstructed, columns), space]
        names += [name, "reconstructed"]
        numbers.append(values)
    _draw(path, np.vstack(rows), title, names, numbers)


def _mosaic(images, columns):
    """Lays digits out row by row, each with a gap right and below; an open last row stays white."""
    images = np.asarray(images, np.uint8).reshape(-1, SIDE, SIDE)
    rows = -(-len(images) // columns)
    tiles = np.zeros((rows * columns, SIDE + GAP, SIDE + GAP), np.uint8)
    tiles[: len(images), :SIDE, :SIDE] = images
    tiles = tiles.reshape(rows, columns, SIDE + GAP, SIDE + GAP)
    return tiles.swapaxes(1, 2).reshape(rows * (SIDE + GAP), columns * (SIDE + GAP))


def _draw(path, ink, title, row_names=(), numbers=()):
    height, width = ink.shape
    left = 0.95 if row_names else 0.1
    across = max(width / 75, 5.5)
    inches = across, across * height / width
    with rc_context(STYLE):
        figure = Figure(figsize=(inches[0] + left + 0.1, inches[1] + 0.5))
        total = figure.get_size_inches()
        axes = figure.add_axes(
            (left / total[0], 0.1 / total[1], inches[0] / total[0], inches[1] / total[1])
        )
        axes.imshow(255 - ink, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        figure.text(0.5, 1 - 0.2 / total[1], title, ha="center", va="center", fontsize=10)
        step = SIDE + GAP
        group = 2 * step + SIDE // 2
        for index, name in enumerate(row_names):
            top = (index // 2) * group + (index % 2) * step if numbers else index * step
            axes.text(-4, top + SIDE / 2, name, ha="right", va="center", fontsize=8)
        for index, values in enumerate(numbers):
            for column, value in enumerate(values):
                axes.text(
                    column * step + SIDE / 2,
                    index * group + 2 * step + 4,
                    f"{value:.3f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                )
        write_whole(path, lambda name: figure.savefig(name, format="png"))
