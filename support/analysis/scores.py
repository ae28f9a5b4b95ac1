"""A CSV with one row for each image: its metrics, and how unusual its -ELBO is, as a percentile.

    percentile = scores.percentiles(table.metrics["loss_total"], validation_elbo)
    scores.write("scores.csv", table, percentile)

The percentile of an image is the percentage of validation images whose -ELBO (`loss_total`) is
lower: an anomaly score that needs no labels. It uses the -ELBO under N(0, I), which all weights
have and which training minimizes. That under the fitted prior detects a little more, but not all
weights have one; bench/README.md compares them.
"""

import csv
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from support import files
from support.analysis.latents import NO_LABEL, OWN, Table
from support.datasets.entries import listed
from support.errors import UserError
from support.text import printable

METRICS = ("loss_total", "loss_total_fitted", "loss_bce", "loss_KLD", "loss_l2", "RMSE")
ORIGIN = ("split", "index", "file", "label")
# A spreadsheet runs a cell that begins with one of these as a formula, unless it is a number.
FORMULA = ("=", "+", "-", "@")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
MOST_NAMED = 50


def percentiles(elbo: NDArray[np.floating], validation_elbo: NDArray[np.floating]) -> NDArray:
    """Returns the percentage of the validation images whose -ELBO is lower than each of `elbo`.

    Args:
        elbo: -ELBO of n images.
        validation_elbo: -ELBO of the validation images, at least one.

    Returns:
        float64 (n,), from 0 to 100.
    """
    lower = np.searchsorted(np.sort(validation_elbo), elbo, side="left")
    return 100 * lower / len(validation_elbo)


def require_replaceable(path: str) -> None:
    """Checks that nothing but an earlier table of scores would be lost if `path` is written.

    Raises:
        UserError: the name does not end in .csv, or `path` exists and is something else.
    """
    if not path.lower().endswith(".csv"):
        raise UserError(f"expected the name of a file that ends in .csv, got {path}")
    header = f"{','.join(ORIGIN)},".encode()
    try:
        with files.open_regular(path) as file:
            start = file.read(len(header))
    except FileNotFoundError:
        return
    if start not in (b"", header):
        raise UserError(
            f"{path} exists and does not hold scores that eval.py wrote: choose another name"
        )


def write(
    path: str,
    table: Table,
    percentile: NDArray[np.floating],
    class_names: Sequence[str] = (),
    above: NDArray[np.bool_] | None = None,
) -> None:
    """Writes the CSV, whole or not at all. Cells of what there is not are empty.

    Args:
        path: the file to write.
        table: n images.
        percentile: their percentiles, (n,).
        class_names: the names of the classes; empty for digits.
        above: whether each lies above the threshold, (n,); None: there is no threshold.
    """
    header = [*ORIGIN, "predicted", "probability", *METRICS, "percentile"]
    if above is not None:
        header.append("above")

    def fill(written: str) -> None:
        with open(written, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for number, row in enumerate(_rows(table, class_names)):
                marks = [] if above is None else [int(above[number])]
                writer.writerow([*row, round(float(percentile[number]), 6), *marks])

    with files.disk_errors(path):
        files.write_whole(path, fill)


def _rows(table: Table, class_names: Sequence[str]) -> Iterator[list[object]]:
    """Yields the cells of each image, up to its metrics."""
    for number in range(len(table)):
        predicted: list[object] = ["", ""]
        if table.predicted is not None and table.probability is not None:
            name = class_name(int(table.predicted[number]), class_names)
            predicted = [harmless(name), table.probability[number]]
        metrics = [table.metrics[name][number] if name in table.metrics else "" for name in METRICS]
        yield [
            table.split[number],
            table.index[number],
            harmless(str(table.file[number])),
            harmless(class_name(int(table.labels[number]), class_names)),
            *predicted,
            *metrics,
        ]


def class_name(label: int, class_names: Sequence[str]) -> str:
    """Returns the name of a class, its number if it has no name, or nothing for no label."""
    if label == NO_LABEL:
        return ""
    return class_names[label] if label < len(class_names) else str(label)


def harmless(text: str) -> str:
    """Returns text that a spreadsheet shows instead of running it as a formula."""
    shown = printable(text)
    if shown.lstrip().startswith(FORMULA) and not NUMBER.fullmatch(shown):
        return f"'{shown}"
    return shown


def describe(table: Table, above: NDArray[np.bool_], threshold: float) -> list[str]:
    """Returns lines on how many images of each part lie above a threshold, and which own ones.

    Args:
        table: n images.
        above: whether each lies above the threshold, (n,).
        threshold: the threshold, a percentile.
    """
    lines = [f"loss_total above that of {threshold:g} % of the validation images:"]
    for split in dict.fromkeys(table.split.tolist()):
        rows = table.split == split
        marked = rows & above
        line = f"{marked.sum():,} of {rows.sum():,} ({100 * marked.sum() / rows.sum():.2f} %)"
        if split == OWN and marked.any():
            line += f": {listed(table.file[marked].tolist(), MOST_NAMED)}"
        lines.append(f"{split:<12}{line}")
    return lines
