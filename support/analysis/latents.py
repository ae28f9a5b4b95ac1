"""A table with one row for each image: its origin, q(z | x), its label and its metrics.

test = latents.of_split("test", dataset.test, images, figures)
table = latents.joined([test, latents.of_own_images(own)])
latents.write("latents.npz", table)
np.load("latents.npz")["mu"]                        # float32 (n, latent_dim)
"""

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from support import files
from support.datasets.types import Split
from support.errors import UserError
from support.text import printable

if TYPE_CHECKING:
    from support.analysis.metrics import Figures
    from support.analysis.own_images import OwnImage

# The metrics of each image, in the order in which tables show them.
METRICS = (
    "loss_total",
    "loss_total_fitted",
    "loss_bce",
    "loss_KLD",
    "loss_l2",
    "RMSE",
    "RMSE_mean",
)
SPLITS = ("train", "validation", "test")
# In the column `split`, the user's own images.
OWN = "images"
NO_LABEL = -1
# The first members of every file that `write` writes, by which it is recognized.
FIRST_MEMBERS = ["split.npy", "index.npy", "file.npy", "mu.npy", "log_var.npy"]


@dataclasses.dataclass(frozen=True)
class Table:
    """n images, one row each.

    Attributes:
        split: the part of the data set, or `images` for the user's own images, str (n,).
        index: the position in that part, or among the user's own images, int64 (n,).
        file: the path of the user's own image, safe to print; empty for others, str (n,).
        labels: int16 (n,); -1: no label.
        images: as the model sees them, uint8 (n, 784).
        mu, log_var: mean and logarithm of the variance of q(z | x), float32 (n, latent_dim).
        metrics: float32 (n,) by the names in `METRICS`; without a fitted prior there is no
            `loss_total_fitted`.
        predicted: the most probable class under the fitted prior, int16 (n,); None: it has no
            classes.
        probability: p(predicted | z = mu), float32 (n,); None likewise.
    """

    split: NDArray[np.str_]
    index: NDArray[np.int64]
    file: NDArray[np.str_]
    labels: NDArray[np.int16]
    images: NDArray[np.uint8]
    mu: NDArray[np.float32]
    log_var: NDArray[np.float32]
    metrics: dict[str, NDArray[np.floating]]
    predicted: NDArray[np.int16] | None
    probability: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def has_labels(self) -> bool:
        """Whether any image has a label."""
        return bool((self.labels != NO_LABEL).any())


def of_split(name: str, split: Split, images: NDArray[np.uint8], figures: "Figures") -> Table:
    """Returns the table of a part of a data set.

    Args:
        name: train, validation or test.
        split: this part.
        images: its images as the model sees them, uint8 (n, 784).
        figures: their metrics.
    """
    labels = np.full(len(images), NO_LABEL, np.int16)
    if split.labels is not None:
        labels = split.labels.astype(np.int16)
    return _table(name, [""] * len(images), labels, images, figures)


def of_own_images(own: "Sequence[OwnImage]") -> Table:
    """Returns the table of the user's own images."""
    rows = []
    for image in own:
        # The name also says which digit of a picture it is.
        path = printable(os.path.join(os.path.dirname(image.digit.file), image.digit.name))
        no_label = np.full(1, NO_LABEL, np.int16)
        rows.append(_table(OWN, [path], no_label, image.seen[None], image.figures))
    return dataclasses.replace(joined(rows), index=np.arange(len(rows)))


def _table(
    split: str,
    paths: Sequence[str],
    labels: NDArray[np.int16],
    images: NDArray[np.uint8],
    figures: "Figures",
) -> Table:
    predicted = figures.predicted_label
    return Table(
        split=np.full(len(images), split),
        index=np.arange(len(images)),
        file=np.array(paths, str),
        labels=labels,
        images=images,
        mu=figures.mu,
        log_var=figures.log_var,
        metrics={name: figures.values[name] for name in METRICS if name in figures.values},
        predicted=None if predicted is None else predicted.astype(np.int16),
        probability=figures.probability,
    )


def joined(tables: Sequence[Table]) -> Table:
    """Returns the rows of several tables of the same model, one table after the other."""

    def column(name: str) -> NDArray:
        return np.concatenate([getattr(table, name) for table in tables])

    first = tables[0]
    metrics = {
        name: np.concatenate([table.metrics[name] for table in tables]) for name in first.metrics
    }
    has_classes = first.predicted is not None
    return Table(
        split=column("split"),
        index=column("index"),
        file=column("file"),
        labels=column("labels"),
        images=column("images"),
        mu=column("mu"),
        log_var=column("log_var"),
        metrics=metrics,
        predicted=column("predicted") if has_classes else None,
        probability=column("probability") if has_classes else None,
    )


def require_replaceable(path: str) -> None:
    """Checks that nothing but an earlier table of latents would be lost if `path` is written.

    Raises:
        UserError: the name does not end in .npz, or `path` exists and is something else.
    """
    if not path.lower().endswith(".npz"):
        raise UserError(f"expected the name of a file that ends in .npz, got {path}")
    try:
        with files.open_regular(path) as file:
            if not file.read(1):
                return
            with zipfile.ZipFile(file) as archive:
                members = archive.namelist()
    except FileNotFoundError:
        return
    except files.DAMAGE:
        members = []
    if members[: len(FIRST_MEMBERS)] != FIRST_MEMBERS:
        raise UserError(
            f"{path} exists and does not hold latents that eval.py wrote: choose another name"
        )


def write(path: str, table: Table, class_names: Sequence[str] = ()) -> None:
    """Writes the latents and metrics of a table as an uncompressed .npz, whole or not at all.

    `numpy.load` reads it without pickles. support/README.md lists its arrays.

    Args:
        path: the file to write.
        table: the images.
        class_names: the names of the labels; empty for digits.
    """
    arrays: dict[str, NDArray] = {
        "split": table.split,
        "index": table.index,
        "file": table.file,
        "mu": table.mu,
        "log_var": table.log_var,
    }
    if table.has_labels:
        arrays["labels"] = table.labels
    arrays |= table.metrics
    if table.predicted is not None and table.probability is not None:
        arrays |= {"predicted": table.predicted, "probability": table.probability}
    if class_names:
        arrays["class_names"] = np.array(class_names, str)

    def fill(written: str) -> None:
        # np.savez cannot name an array `file`.
        with zipfile.ZipFile(written, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    with files.disk_errors(path):
        files.write_whole(path, fill)
