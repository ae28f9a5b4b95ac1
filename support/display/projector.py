"""TensorBoard's Embedding Projector: mu of images as points that show the images themselves.

    projector.write("result", table, class_names, predicted_names)

Writes four files: the configuration, under the name that TensorBoard expects; mu, as float32
numbers; a table of what a point can be labelled and coloured by; and all images in one picture, the
sprite image.
"""

import math
import os

import numpy as np
from numpy.typing import NDArray

from support import files
from support.analysis.latents import OWN, Table
from support.analysis.scores import class_name
from support.datasets.types import SIDE
from support.display import plots
from support.text import printable

CONFIG = "projector_config.pbtxt"
MU, METADATA, SPRITE = "projector_mu.bytes", "projector_metadata.tsv", "projector_sprite.png"
NO_LABEL = "your image"
# Pixels of paper around the ink of an image, and the brightness up to which a pixel is no ink.
MARGIN, FAINT = 2, 30
# With this end, the address opens the projector at once. Without it TensorBoard shows at first that
# no dashboards are active, until the page is loaded again.
ADDRESS = "http://localhost:6006/#projector"
NAMES = (CONFIG, MU, METADATA, SPRITE)
# Browsers draw no larger texture than this, in pixels a side.
LARGEST_SPRITE = 8192
MOST_IMAGES = (LARGEST_SPRITE // SIDE) ** 2


def write(
    folder: str, table: Table, class_names: tuple[str, ...], predicted_names: tuple[str, ...]
) -> int:
    """Writes the files, each whole or not at all; the configuration, which names them, last.

    Args:
        folder: the folder to write to.
        table: the images.
        class_names: the names of the labels; empty for digits.
        predicted_names: those of the predicted labels, which are classes of the training data.

    Returns:
        How many images were written: the first ones, if there are more than fit into the sprite
        image.
    """
    count = min(len(table), MOST_IMAGES)
    mu = np.ascontiguousarray(table.mu[:count], "<f4")
    metadata = _metadata(table, count, class_names, predicted_names)
    sprite = _sprite(table.images[:count])
    files.write_whole(os.path.join(folder, MU), lambda written: mu.tofile(written))
    files.write_text(os.path.join(folder, METADATA), metadata)
    files.write_whole(os.path.join(folder, SPRITE), lambda written: _save_picture(sprite, written))
    files.write_text(os.path.join(folder, CONFIG), _config(mu.shape))
    return count


def _config(shape: tuple[int, ...]) -> str:
    """Returns the configuration as text: where the files are, and their shapes."""
    from google.protobuf import text_format
    from tensorboard.plugins import projector

    config = projector.ProjectorConfig()
    embedding = config.embeddings.add()
    embedding.tensor_name = "mu"
    embedding.tensor_path = MU
    embedding.tensor_shape.extend(shape)
    embedding.metadata_path = METADATA
    embedding.sprite.image_path = SPRITE
    embedding.sprite.single_image_dim.extend([SIDE, SIDE])
    return text_format.MessageToString(config)


def _metadata(
    table: Table, count: int, class_names: tuple[str, ...], predicted_names: tuple[str, ...]
) -> str:
    """Returns the table of labels: a line of column names, then a line for each image."""
    columns: dict[str, list[str]] = {}
    if table.has_labels:
        # The user's own images are in a class of their own, so that colours stay few.
        labels = [class_name(label, class_names) for label in table.labels[:count].tolist()]
        columns["label"] = [label or NO_LABEL for label in labels]
    if table.predicted is not None:
        columns["predicted"] = [
            class_name(label, predicted_names) for label in table.predicted[:count].tolist()
        ]
    columns["-ELBO"] = [f"{value:.2f}" for value in table.metrics["loss_total"][:count]]
    positions = zip(table.split[:count], table.index[:count], table.file[:count], strict=True)
    columns["image"] = [
        file if split == OWN else f"{split} {index}" for split, index, file in positions
    ]
    lines = ["\t".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append("\t".join(printable(cell) for cell in row))
    return "\n".join(lines) + "\n"


def _sprite(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the images (n, 784) in one square picture, row by row: grey and opacity, (h, h, 2).

    It is dark ink on white paper. The paper ends `MARGIN` pixels from the ink: points hide less of
    each other, and what is left of the paper shows the colour of a point.
    """
    from scipy import ndimage

    columns = math.ceil(math.sqrt(len(images)))
    reach = 2 * MARGIN + 1
    near_ink = ndimage.maximum_filter(plots.as_squares(images), size=(1, reach, reach)) > FAINT
    opacity = np.where(near_ink, np.uint8(255), np.uint8(0))
    page = np.stack(
        [255 - plots.mosaic(images, columns, gap=0), plots.mosaic(opacity, columns, gap=0)], axis=2
    )
    # The projector wants as many rows as columns.
    return np.pad(page, ((0, SIDE * columns - len(page)), (0, 0), (0, 0)))


def _save_picture(pixels: NDArray[np.uint8], path: str) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, "png")
