"""matplotlib pictures from arrays, in one style; nothing about models.

Every function writes one PNG, whole or not at all. Digits are uint8 (n, 784) or (n, 28, 28) and
appear as dark ink on white paper. Colours are told apart by colour-blind eyes, and nothing is said
by colour alone.
"""

import os
import sys

import numpy as np
from matplotlib import patheffects, rc_context
from matplotlib.figure import Figure

from data import GAP, SIDE, mosaic
from flags import UserError, write_whole

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.dpi": 150,
}
INK, ACCENT = "#332288", "#CC6677"
# Paul Tol's "muted" scheme (https://personal.sron.nl/~pault/): ten that colour-blind eyes part.
DIGIT_COLOURS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933")
DIGIT_COLOURS += ("#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777")


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


def grid(path, images, columns, title, row_names=(), column_names=(), column_label=""):
    """Draws digits row by row, with names left of the rows and below the columns.

    Args:
        path: the PNG to write.
        images: as the module says.
        columns: digits in a row.
        title: one line above.
        row_names, column_names: strings, one a row and one a column, or none.
        column_label: what the column names mean.
    """
    _draw(path, mosaic(images, columns), title, row_names, column_names, column_label)


def reconstructions(path, originals, reconstructed, columns, title):
    """Draws rows of originals, each above the row of its reconstructions."""
    rows = []
    for first in range(0, len(originals), columns):
        rows += [originals[first : first + columns], reconstructed[first : first + columns]]
    names = ["original", "reconstructed"] * (len(rows) // 2)
    _draw(path, np.vstack([mosaic(row, columns) for row in rows]), title, names)


def extremes(path, groups, title):
    """Draws groups of digits over their reconstructions, with a number under each pair.

    Args:
        groups: a list of (name, originals, reconstructed, numbers), equally long.
    """
    rows, names, numbers = [], [], []
    columns = len(groups[0][1])
    space = np.zeros((SIDE // 2, columns * (SIDE + GAP)), np.uint8)
    for name, originals, reconstructed, values in groups:
        rows += [mosaic(originals, columns), mosaic(reconstructed, columns), space]
        names += [name, "reconstructed"]
        numbers.append([f"{value:.3f}" for value in values])
    _draw(path, np.vstack(rows), title, names, numbers=numbers)


def bars(path, heights, title, x_label, y_label, threshold, threshold_label):
    """Draws one bar for each number of `heights`, and a line at the bar number `threshold`."""

    def draw(axes):
        axes.bar(np.arange(len(heights)), heights, color=INK, width=0.8)
        axes.axvline(threshold - 0.5, color=ACCENT, linestyle="--", linewidth=1)
        axes.text(threshold + 0.5, 0.9 * max(heights), threshold_label, color=ACCENT)

    _chart(path, (7, 3), title, x_label, y_label, draw)


def latent_map(path, points, labels, title, x_label, y_label):
    """Draws points (n, 2), coloured by the digit in `labels` and named at each digit's median.

    Points of a label above 9 are grey dots.
    """

    def draw(axes):
        # Custom data may have labels that are no digits.
        axes.scatter(*points[labels > 9].T, s=4, marker=".", color="#BBBBBB", linewidths=0)
        for digit, colour in enumerate(DIGIT_COLOURS):
            of_digit = points[labels == digit]
            if not len(of_digit):
                continue
            # The digit itself as marker: told apart without colour, too.
            axes.scatter(*of_digit.T, s=16, marker=f"${digit}$", color=colour, linewidths=0)
        outline = [patheffects.withStroke(linewidth=3, foreground="white")]
        for digit, colour in enumerate(DIGIT_COLOURS):
            if (labels == digit).any():
                x, y = np.median(points[labels == digit], axis=0)
                name = axes.text(x, y, str(digit), color=colour, fontsize=16, weight="bold")
                name.set(path_effects=outline, ha="center", va="center")
        axes.set_aspect("equal", adjustable="datalim")

    _chart(path, (6, 6), title, x_label, y_label, draw)


def histogram(path, values, groups, title, x_label, y_label):
    """Draws a histogram over rows of digits with numbers below, such as its extremes.

    Args:
        values: (n,).
        groups: a list of (name, images, numbers), equally long.
    """
    columns = len(groups[0][1])
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=(3, 2))
        above.hist(values, bins=80, color=INK)
        above.set(title=title, xlabel=x_label, ylabel=y_label)
        space = np.zeros((SIDE // 2, columns * (SIDE + GAP)), np.uint8)
        rows = [row for _, images, _ in groups for row in (mosaic(images, columns), space)]
        names = [(name, [f"{number:.0f}" for number in numbers]) for name, _, numbers in groups]
        _show_ink(below, np.vstack(rows))
        for index, (name, numbers) in enumerate(names):
            top = index * (SIDE + GAP + SIDE // 2)
            below.text(-4, top + SIDE / 2, name, ha="right", va="center", fontsize=8)
            _number_row(below, top + SIDE + GAP, numbers)
        write_whole(path, lambda name: figure.savefig(name, format="png"))


def ranking(path, names, values, ranges, limit, limit_name, title, x_label):
    """Draws one horizontal bar a name, the first on top, its range, and a line at a limit.

    Args:
        ranges: of each value, a pair (smallest, largest).
    """
    size = 7, 0.45 * len(names) + 1.2

    def draw(axes):
        rows = range(len(names))
        whiskers = [
            [abs(value - edges[side]) for value, edges in zip(values, ranges, strict=True)]
            for side in (0, 1)
        ]
        axes.barh(rows, values, color=INK, xerr=whiskers, ecolor=ACCENT)
        labels = [f"{value:,.0f}" for value in values]
        # At the end of the range, not of the bar: matplotlib leaves the range free.
        axes.bar_label(axes.containers[-1], labels, padding=4)
        axes.axvline(limit, color=ACCENT, linestyle="--")
        axes.set(yticks=rows, yticklabels=names, xlim=(0, 1.3 * max(limit, *values)))
        axes.invert_yaxis()
        text = f" {limit_name}:\n {limit:,.0f}"
        axes.text(limit, rows[-1], text, color=ACCENT, verticalalignment="center")

    _chart(path, size, title, x_label, "", draw)


def lines(path, panels, title, x_label, y_label):
    """Draws panels side by side, both axes logarithmic.

    Args:
        panels: a list of (name, curves, points); curves and points are lists of (name, x, y),
            drawn as lines and as crosses.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        styles = (("-", "o"), ("--", "s"), (":", "^"))
        for axes, (name, curves, points) in zip(all_axes, panels, strict=True):
            for (label, x, y), (dash, marker), colour in zip(
                curves, styles, DIGIT_COLOURS[::3], strict=False
            ):
                axes.plot(x, y, dash, marker=marker, markersize=4, color=colour, label=label)
            for label, x, y in points:
                axes.plot(x, y, "x", color="black", markersize=9, mew=2, label=label)
            axes.set(title=name, xlabel=x_label, ylabel=y_label, xscale="log", yscale="log")
            axes.set_xticks(x_ticks := curves[0][1], [str(tick) for tick in x_ticks])
            axes.legend(frameon=False, fontsize=8)
        figure.suptitle(title, fontsize=10)
        write_whole(path, lambda name: figure.savefig(name, format="png"))


def _chart(path, size, title, x_label, y_label, draw):
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        write_whole(path, lambda name: figure.savefig(name, format="png"))


def _show_ink(axes, ink):
    axes.imshow(255 - ink, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()


def _number_row(axes, top, texts):
    for column, text in enumerate(texts):
        place = column * (SIDE + GAP) + SIDE / 2
        axes.text(place, top + 1, text, ha="center", va="top", fontsize=8)


def _draw(path, ink, title, row_names=(), column_names=(), column_label="", numbers=()):
    height, width = ink.shape
    left = 0.12 + 0.065 * max(map(len, row_names), default=0)
    bottom = 0.1 + 0.17 * bool(column_names) + 0.2 * bool(column_label)
    across = max(width / 75, 5.5)
    inches = across, across * height / width
    with rc_context(STYLE):
        figure = Figure(figsize=(inches[0] + left + 0.1, inches[1] + 0.4 + bottom))
        total = figure.get_size_inches()
        axes = figure.add_axes(
            (left / total[0], bottom / total[1], inches[0] / total[0], inches[1] / total[1])
        )
        _show_ink(axes, ink)
        figure.text(0.5, 1 - 0.2 / total[1], title, ha="center", va="center", fontsize=10)
        step = SIDE + GAP
        group = 2 * step + SIDE // 2
        for index, name in enumerate(row_names):
            top = (index // 2) * group + (index % 2) * step if numbers else index * step
            axes.text(-4, top + SIDE / 2, name, ha="right", va="center", fontsize=8)
        for index, texts in enumerate(numbers):
            _number_row(axes, index * group + 2 * step - 2, texts)
        _number_row(axes, height - 2, column_names)
        if column_label:
            middle = (left + inches[0] / 2) / total[0]
            figure.text(middle, 0.15 / total[1], column_label, ha="center", va="center", fontsize=9)
        write_whole(path, lambda name: figure.savefig(name, format="png"))
