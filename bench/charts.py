"""The charts of the benchmarks, in the style of support/display/plots.py."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.display import plots
from support.display.plots import ACCENT, CLASS_COLOURS, INK

DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "^")
SMALL = 8


class Bar(NamedTuple):
    """A bar with its range."""

    name: str
    value: float
    smallest: float
    largest: float


class Threshold(NamedTuple):
    """A line at a value."""

    name: str
    value: float


class Curve(NamedTuple):
    """Points that belong together."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Panel(NamedTuple):
    """One of several plots that stand side by side.

    Attributes:
        title: the text above it.
        curves: drawn as lines.
        points: drawn as crosses.
    """

    title: str
    curves: Sequence[Curve]
    points: Sequence[Curve]


def ranking(path: str, bars: Sequence[Bar], limit: Threshold, *, title: str, x_label: str) -> None:
    """Draws horizontal bars, the first at the top, and a line at a limit."""
    rows = range(len(bars))
    values = [bar.value for bar in bars]
    whiskers = [
        [bar.value - bar.smallest for bar in bars],
        [bar.largest - bar.value for bar in bars],
    ]
    with plots.figure(path, (8, 0.5 * len(bars) + 1.4), "constrained") as figure:
        axes = figure.subplots()
        drawn = axes.barh(rows, values, color=INK, xerr=whiskers, ecolor=ACCENT)
        # Matplotlib puts these at the end of the range, not of the bar.
        labels = [f"{value:,.0f}" for value in values]
        axes.bar_label(drawn, labels, padding=4)
        axes.axvline(limit.value, color=ACCENT, linestyle="--")
        axes.set(yticks=rows, yticklabels=[bar.name for bar in bars])
        axes.set(xlim=(0, 1.3 * max(limit.value, *values)), title=title, xlabel=x_label)
        axes.invert_yaxis()
        text = f" {limit.name}:\n {limit.value:,.0f}"
        axes.text(limit.value, rows[-1], text, color=ACCENT, verticalalignment="center")


def panels(
    path: str, all_panels: Sequence[Panel], *, title: str, x_label: str, y_label: str
) -> None:
    """Draws panels side by side, with logarithmic axes and a tick at each x of the first curve."""
    with plots.figure(path, (9, 4), "constrained") as figure:
        all_axes = figure.subplots(1, len(all_panels), squeeze=False)[0]
        for axes, panel in zip(all_axes, all_panels, strict=True):
            for curve, dash, marker, colour in zip(
                panel.curves, DASHES, MARKERS, CLASS_COLOURS[::3], strict=False
            ):
                axes.plot(
                    *(curve.x, curve.y, dash),
                    marker=marker,
                    markersize=4,
                    color=colour,
                    label=curve.name,
                )
            for points in panel.points:
                axes.plot(
                    points.x, points.y, "x", color="black", markersize=9, mew=2, label=points.name
                )
            axes.set(title=panel.title, xlabel=x_label, ylabel=y_label, xscale="log", yscale="log")
            ticks = panel.curves[0].x
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.legend(frameon=False, fontsize=SMALL)
        figure.suptitle(title, fontsize=plots.LABEL_SIZE)


def quality(
    path: str,
    baselines: Sequence[Curve],
    own: Sequence[Curve],
    thresholds: Sequence[Threshold],
) -> None:
    """Draws the -ELBO over the seconds of training, both axes logarithmic.

    Args:
        path: the PNG to write.
        baselines: curves of other frameworks, one point per epoch.
        own: curves of runs of this repository; only their ends are drawn.
        thresholds: the -ELBOs to reach.
    """
    with plots.figure(path, (9, 5.2), "constrained") as figure:
        axes = figure.subplots()
        dashes = itertools.cycle(("--", ":", "-."))
        for curve, colour, dash in zip(
            baselines, itertools.cycle(CLASS_COLOURS[1:]), dashes, strict=False
        ):
            axes.plot(
                *(curve.x, curve.y, dash), color=colour, marker=".", markersize=4, label=curve.name
            )
        ends = sorted((curve.x[-1], curve.y[-1]) for curve in own)
        label = "this repository: ends of runs"
        axes.plot(*zip(*ends, strict=True), "-o", color=INK, markersize=6, label=label)
        for threshold in thresholds:
            axes.axhline(threshold.value, color=ACCENT, linewidth=0.8)
            axes.annotate(
                threshold.name,
                xy=(1, threshold.value),
                xycoords=axes.get_yaxis_transform(),
                xytext=(-3, -3),
                textcoords="offset points",
                ha="right",
                va="top",
                color=ACCENT,
                fontsize=SMALL,
            )
        axes.set(xscale="log", yscale="log", xlabel="seconds of training, from the first step")
        axes.set(title="Time to quality", ylabel="-ELBO, nats, validation images")
        ticks = range(90, 180, 10)
        axes.set_yticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=SMALL)


def mosaics(path: str, images_by_title: Mapping[str, NDArray[np.uint8]]) -> None:
    """Draws squares of digits, two per row.

    Args:
        path: the PNG to write.
        images_by_title: uint8 arrays (100, 784).
    """
    rows = -(-len(images_by_title) // 2)
    with plots.figure(path, (9, 4.8 * rows), "constrained") as figure:
        all_axes = figure.subplots(rows, 2, squeeze=False).flatten()
        for axes, (title, images) in zip(all_axes, images_by_title.items(), strict=False):
            plots.show(axes, plots.in_rows(images, 10))
            axes.set_title(title, fontsize=plots.TEXT_SIZE)
        for axes in all_axes:
            axes.set_axis_off()
