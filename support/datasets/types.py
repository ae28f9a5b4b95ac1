"""The size of the model's images, and a data set with its parts as arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 28
PIXELS = SIDE * SIDE
# The weights of red, green and blue in greyscale: those of ITU-R 601, as in Pillow.
GREY_WEIGHTS = (0.299, 0.587, 0.114)
MOST_IMAGES = 1_000_000


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        images: uint8 (n, 784), bright ink on dark.
        labels: uint8 (n,); None if the data set has no labels. Either all parts of a data set have
            labels, or none has.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None


class Dataset(NamedTuple):
    """A data set in its three parts.

    Attributes:
        name: mnist, fashion_mnist, kmnist, digits or custom.
        sha256: the hash of all its arrays, before any `limit`.
        train: what the model is trained on.
        validation: what choices are based on.
        test: what metrics are reported on.
        class_names: the name of each label if the labels were renumbered; else empty.
        classes: the labels of the training and validation images, ascending, if only some were
            asked for; else empty. The test images are those of all classes.
        description: lines that say what was found in the user's files; empty for other data sets
            and for MNIST.
        notices: lines about what is probably wrong with the data, and about what was done to it;
            usually empty.
        training_notices: such lines that matter only for training.
        fallback_reason: why this data set is used instead of MNIST; else empty.
    """

    name: str
    sha256: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    description: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    training_notices: tuple[str, ...] = ()
    fallback_reason: str = ""


class Contents(NamedTuple):
    """What the user's files hold, before it is split and named.

    Attributes:
        parts: the images and labels of `train`, and of `validation` and `test` if the files have
            them.
        class_names: as in `Dataset`.
        files: the format and the names of what was read, for people.
        values: the type, shape and range of the images before they became 28x28 bytes.
        notices: lines about what was ignored, scaled, turned or otherwise decided.
        transposed: whether the rows and columns of the images were exchanged.
    """

    parts: dict[str, Split]
    class_names: tuple[str, ...]
    files: str
    values: str
    notices: tuple[str, ...]
    transposed: bool = False
