"""The user's own images: a table in the terminal, and two pictures."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from support.analysis.own_images import OwnImage
from support.datasets.types import SIDE
from support.display import plots

# Digits per row of the picture, and pixels of the picture for each pixel that the model sees.
COLUMNS, SCALE = 5, 5
# The longest names, in characters: in the table, below a digit, and beside a row of digits.
TABLE_NAME, CAPTION_NAME, ROW_NAME = 28, 16, 12


def print_table(images: Sequence[OwnImage]) -> None:
    """Prints a line for each image, and what the columns mean."""
    print(f"{'your images':<{TABLE_NAME}}  loss_total  RMSE_mean  higher  classified as")
    for image in images:
        print(
            f"{shorten(image.digit.name, TABLE_NAME):<{TABLE_NAME}}  {image.loss_total:>10.2f}  "
            f"{image.RMSE_mean:>9.4f}  {100 * image.share_higher:>4.0f} %  {image.classification}"
        )
    print("higher: percentage of the test images with a higher loss_total (-ELBO)")
    print("classified as: by the fitted prior, with p(class | z = mu)")
    if any(image.is_none_of_these for image in images):
        print("none of these: loss_total is higher than that of all but 1 in 1,000 test images")


def draw(path: str, images: Sequence[OwnImage], reconstructions: NDArray[np.uint8]) -> None:
    """Draws each image as it was found, as the model sees it, and as it is reconstructed.

    Args:
        path: the PNG to write.
        images: n images, with their classes.
        reconstructions: their reconstructions, uint8 (n, 784).
    """
    rows = []
    for first in range(0, len(images), COLUMNS):
        part = images[first : first + COLUMNS]
        crops = [plots.resize(image.digit.crop, SCALE * SIDE) for image in part]
        names = [shorten(image.digit.name, CAPTION_NAME) for image in part]
        results = [f"{image.classification}\n{image.loss_total:.0f} nats" for image in part]
        # Plots invert their images, but crops are to appear as the camera saw them.
        rows.append(plots.Row("your picture", 255 - np.stack(crops), names))
        rows.append(plots.Row("what the model sees", np.stack([image.seen for image in part])))
        decoded = reconstructions[first : first + COLUMNS]
        rows.append(plots.Row("reconstruction", decoded, results))
    title = "Your images: reconstruction (z = mu), class, and -ELBO in nats"
    plots.draw(path, title, rows, scale=SCALE)


def draw_interpolation(path: str, images: Sequence[OwnImage], paths: NDArray[np.uint8]) -> None:
    """Draws a row of steps from each image to the next one.

    Args:
        path: the PNG to write.
        images: n images.
        paths: the decoded steps between neighbours, uint8 (n - 1, steps, 784).
    """
    rows = []
    for (first, second), steps in zip(itertools.pairwise(images), paths, strict=True):
        names = [shorten(image.digit.name, ROW_NAME) for image in (first, second)]
        row = np.vstack([first.seen[None], steps, second.seen[None]])
        rows.append(plots.Row(" to ".join(names), row))
    shares = np.linspace(0, 1, paths.shape[1])
    plots.draw(
        path,
        "Spherical interpolation of mu between your images",
        rows,
        column_names=["first", *(f"{share:.1f}" for share in shares), "second"],
        column_label="fraction of the way from the first image to the second",
    )


def shorten(name: str, length: int) -> str:
    """Returns a name in at most `length` characters; a longer one loses its beginning."""
    if len(name) <= length:
        return name
    return f"...{name[3 - length :]}"
