"""Pictures from arrays, in one style; nothing about models.

    pictures.digits("generated.png", "100 digits", pictures.in_rows(images, 10))

Every function writes one PNG, whole or not at all. Digits are uint8 (n, 784) or (n, 28, 28) and
appear as dark ink on white paper. Colours are told apart by colour-blind eyes, and nothing is said
by colour alone. A row of digits is a tuple (name, images, texts below or ()).
"""

import contextlib
import io
import itertools

import numpy as np

from data import SIDE
from support import files

GAP = 3
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


def as_png(grey):
    """Returns a grey picture, uint8 (height, width), as the bytes of a PNG."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(grey).save(content, "png")
    return content.getvalue()


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
        _show(axes, rows)
        _texts(axes, height - 2, column_names)
        figure.text(0.5, 1 - 0.2 / total[1], title, ha="center", va="center", fontsize=10)
        middle = (left + across / 2) / total[0]
        figure.text(middle, 0.15 / total[1], column_label, ha="center", va="center", fontsize=9)


def bars(path, heights, title, x_label, y_label, threshold, threshold_label):
    """Draws one bar for each number of `heights`, and a line at the bar number `threshold`."""
    with figure_of(path, (7, 3)) as figure:
        axes = figure.subplots()
        axes.bar(np.arange(len(heights)), heights, color=INK, width=0.8)
        axes.axvline(threshold - 0.5, color=ACCENT, linestyle="--", linewidth=1)
        axes.text(threshold + 0.5, 0.9 * max(heights), threshold_label, color=ACCENT)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)


def latent_map(path, points, labels, title, x_label, y_label, gaussians=()):
    """Draws points (n, 2), coloured by the digit in `labels` and named at each digit's median.

    Points of a label above 9 are grey dots.

    Args:
        gaussians: tuples (digit, mean (2,), covariance (2, 2)), each drawn as the ellipse of two
            standard deviations.
    """
    from matplotlib import patches, patheffects

    with figure_of(path, (6, 6)) as figure:
        axes = figure.subplots()
        # Custom data may have labels that are no digits.
        axes.scatter(*points[labels > 9].T, s=4, marker=".", color="#BBBBBB", linewidths=0)
        present = [digit for digit in range(10) if (labels == digit).any()]
        for digit in present:
            # The digit itself as marker: told apart without colour, too.
            look = {"marker": f"${digit}$", "color": DIGIT_COLOURS[digit]}
            axes.scatter(*points[labels == digit].T, s=16, linewidths=0, **look)
        for digit, mean, covariance in gaussians:
            variances, directions = np.linalg.eigh(covariance)
            across, along = 4 * np.sqrt(variances)
            angle = np.degrees(np.arctan2(directions[1, 0], directions[0, 0]))
            colour = DIGIT_COLOURS[digit] if digit < 10 else "#777777"
            look = {"fill": False, "color": colour, "linewidth": 0.8}
            axes.add_patch(patches.Ellipse(mean, across, along, angle=angle, **look))
        outline = [patheffects.withStroke(linewidth=3, foreground="white")]
        for digit in present:
            x, y = np.median(points[labels == digit], axis=0)
            name = axes.text(x, y, str(digit), color=DIGIT_COLOURS[digit], fontsize=16)
            name.set(path_effects=outline, ha="center", va="center", weight="bold")
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(title=title, xlabel=x_label, ylabel=y_label)


def histogram(path, values, rows, title, x_label, y_label):
    """Draws a histogram of values (n,) over rows of digits, such as its extremes."""
    with figure_of(path, (7, 4.6)) as figure:
        above, below = figure.subplots(2, 1, height_ratios=(3, 2))
        above.hist(values, bins=80, color=INK)
        above.set(title=title, xlabel=x_label, ylabel=y_label)
        _show(below, rows)


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
    columns = max(len(images) for _, images, _ in rows)
    parts = []
    for _, images, texts in rows:
        parts.append(np.pad(mosaic(images, columns), ((0, SIDE // 2 if texts else 0), (0, 0))))
    return np.vstack(parts)


def _show(axes, rows):
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
