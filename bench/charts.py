"""The charts of the benches, in the style of support/pictures.py."""

import itertools

from support.pictures import ACCENT, DIGIT_COLOURS, INK, figure_of, in_rows, show


def ranking(path, names, values, ranges, limit, limit_name, title, x_label):
    """Draws one horizontal bar a name, the first on top, its range, and a line at a limit.

    Args:
        ranges: of each value, a pair (smallest, largest).
    """
    rows = range(len(names))
    whiskers = [
        [abs(value - edges[side]) for value, edges in zip(values, ranges, strict=True)]
        for side in (0, 1)
    ]
    with figure_of(path, (7, 0.45 * len(names) + 1.2)) as figure:
        axes = figure.subplots()
        axes.barh(rows, values, color=INK, xerr=whiskers, ecolor=ACCENT)
        labels = [f"{value:,.0f}" for value in values]
        # At the end of the range, not of the bar: matplotlib leaves the range free.
        axes.bar_label(axes.containers[-1], labels, padding=4)
        axes.axvline(limit, color=ACCENT, linestyle="--")
        axes.set(yticks=rows, yticklabels=names, xlim=(0, 1.3 * max(limit, *values)))
        axes.set(title=title, xlabel=x_label)
        axes.invert_yaxis()
        text = f" {limit_name}:\n {limit:,.0f}"
        axes.text(limit, rows[-1], text, color=ACCENT, verticalalignment="center")


def lines(path, panels, title, x_label, y_label):
    """Draws panels side by side, both axes logarithmic.

    Args:
        panels: a list of (name, curves, points); curves and points are lists of (name, x, y),
            drawn as lines and as crosses.
    """
    with figure_of(path, (8, 3.6)) as figure:
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


def quality(path, peers, own, thresholds):
    """Draws the -ELBO over the seconds of training, both axes logarithmic.

    Args:
        peers, own: dicts of name -> (seconds, elbo), an item an epoch; of `own` the ends count.
        thresholds: dict of name -> -ELBO, drawn as lines.
    """
    with figure_of(path, (8, 4.6)) as figure:
        axes = figure.subplots()
        dashes = itertools.cycle(("--", ":", "-."))
        for (name, curve), colour, dash in zip(
            peers.items(), itertools.cycle(DIGIT_COLOURS[1:]), dashes, strict=False
        ):
            axes.plot(*curve, dash, color=colour, marker=".", markersize=4, label=name)
        ends = sorted((seconds[-1], elbo[-1]) for seconds, elbo in own.values())
        label = "this repository: ends of runs"
        axes.plot(*zip(*ends, strict=True), "-o", color=INK, markersize=6, label=label)
        for name, threshold in thresholds.items():
            axes.axhline(threshold, color=ACCENT, linewidth=0.8)
            edge = {"xy": (1, threshold), "xycoords": axes.get_yaxis_transform()}
            below = {"xytext": (-3, -3), "textcoords": "offset points", "ha": "right", "va": "top"}
            axes.annotate(name, **edge, **below, color=ACCENT, fontsize=7)
        axes.set(xscale="log", yscale="log", xlabel="seconds of training, from the first step")
        axes.set(title="Time to quality", ylabel="-ELBO, nats, validation images")
        axes.set_yticks(ticks := range(90, 180, 10), [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)


def mosaics(path, panels):
    """Draws squares of digits, two a row.

    Args:
        panels: dict of title -> digits, uint8 (100, 784).
    """
    rows = -(-len(panels) // 2)
    with figure_of(path, (8, 4.2 * rows)) as figure:
        places = figure.subplots(rows, 2, squeeze=False).flat
        for axes, (title, images) in zip(places, panels.items(), strict=False):
            show(axes, in_rows(images, 10))
            axes.set_title(title, fontsize=9)
        for axes in places:
            axes.set_axis_off()
