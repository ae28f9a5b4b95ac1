"""Pictures from arrays, in one style; nothing about models.

    pictures.digits("generated.png", "100 digits", pictures.in_rows(images, 10))

Every function writes one PNG, whole or not at all. Digits are uint8 (n, 784) or (n, 28, 28) and
appear as dark ink on white paper. Colours are told apart by colour-blind eyes, and nothing is said
by colour alone. A row of digits is a tuple (name, images, texts below or ()).
"""

import contextlib
import itertools

import numpy as np

from data import SIDE
from support import files

GAP = 3
# Fewer digits than that in a row leave the rest of it empty.
LEAST_COLUMNS = 8
STEP = SIDE + GAP
STYLE = {"font.size": 9, "axes.titlesize": 10, "figure.facecolor": "white", "savefig.dpi": 150}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}
INK, ACCENT = "#332288", "#CC6677"
# Paul Tol's "muted" scheme (https://personal.sron.nl/~pault/): ten that colour-blind eyes part.
DIGIT_COLOURS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933")
DIGIT_COLOURS += ("#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777")


def mosaic(images, columns, gap=GAP):
    """Lays digits out row by row, each with `gap` empty pixels right and below.

    Args:
        images: uint8 (n, 784) or (n, 28, 28).

    Returns:
        uint8 (rows * (28 + gap), columns * (28 + gap)); an open last row stays empty.
    """
    images = np.asarray(images, np.uint8).reshape(-1, SIDE, SIDE)
    rows, step = -(-len(images) // columns), SIDE + gap
    tiles = np.zeros((rows * columns, step, step), np.uint8)
    tiles[: len(images), :SIDE, :SIDE] = images
    tiles = tiles.reshape(rows, columns, step, step)
    return tiles.swapaxes(1, 2).reshape(rows * step, columns * step)


def in_rows(images, columns, names=()):
    """Returns rows of digits, so many a row, with their names."""
    parts = [images[i : i + columns] for i in range(0, len(images), columns)]
    return [(name, part, ()) for name, part in itertools.zip_longest(names, parts, fillvalue="")]


def digits(path, title, rows, column_names=(), column_label=""):
    """Draws rows of digits.

    Args:
        path: the PNG to write.
        title: one line above.
        rows: as the module says.
        column_names: strings below the columns.
        column_label: what the column names mean.
    """
    ink = _ink(rows)
    height, width = ink.shape
    left = 0.12 + 0.065 * max(len(name) for name, _, _ in rows)
    bottom = 0.1 + 0.17 * bool(column_names) + 0.2 * bool(column_label)
    across = max(width / 75, 5.5)
    down = across * height / width
    with figure_of(path, (across + left + 0.1, down + 0.4 + bottom), layout=None) as figure:
        total = figure.get_size_inches()
        place = (left / total[0], bottom / total[1], across / total[0], down / total[1])
        axes = figure.add_axes(place)
        show(axes, rows)
        _texts(axes, height - 2, column_names)
        figure.text(0.5, 1 - 0.2 / total[1], title, ha="center", va="center", fontsize=10)
        middle = (left + across / 2) / total[0]
        figure.text(middle, 0.15 / total[1], column_label, ha="center", va="center", fontsize=9)


@contextlib.contextmanager
def figure_of(path, inches, layout="constrained"):
    """Gives a figure to draw on, and writes it when the block ends well."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=inches, layout=layout)
        yield figure
        files.write_whole(path, lambda name: figure.savefig(name, format="png"))


def _ink(rows):
    """Returns the pixels of rows of digits, with empty ones where texts stand below."""
    columns = max(LEAST_COLUMNS, *(len(images) for _, images, _ in rows))
    parts = []
    for _, images, texts in rows:
        parts.append(np.pad(mosaic(images, columns), ((0, SIDE // 2 if texts else 0), (0, 0))))
    return np.vstack(parts)


def show(axes, rows):
    """Draws rows of digits on axes, with their names and texts."""
    axes.imshow(255 - _ink(rows), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    top = 0
    for name, _, texts in rows:
        axes.text(-4, top + SIDE / 2, name, ha="right", va="center", fontsize=8)
        _texts(axes, top + STEP - 2, texts)
        top += STEP + (SIDE // 2 if texts else 0)


def _texts(axes, top, texts):
    """Writes one text below each column."""
    for column, text in enumerate(texts):
        place = column * STEP + SIDE / 2
        axes.text(place, top + 1, text, ha="center", va="top", fontsize=8)
