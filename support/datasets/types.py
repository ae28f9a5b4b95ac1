"""The image size of the model, and the parts of a data set as arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 28
PIXELS = SIDE * SIDE
# By which red, green and blue become grey: ITU-R 601, as Pillow has them.
GREY_WEIGHTS = (0.299, 0.587, 0.114)
MOST_IMAGES = 1_000_000


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        images: uint8 (n, 784), bright ink on dark.
        labels: uint8 (n,); None where the data set has no labels. Of one data set, either all
            parts have labels or none.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None


class Dataset(NamedTuple):
    """A data set in its three parts.

    Attributes:
        name: mnist, fashion_mnist, kmnist, digits or custom.
        sha256: of all its arrays, before any `limit`.
        train: what the model is trained on.
        validation: what choices are made on.
        test: what figures are reported on.
        class_names: the name of each label where they are not the digits 0 to 9; else empty.
        description: lines that say what was found in the user's files; empty for data sets that
            are known by their hash.
        notices: lines about what is probably wrong with the data, and about what was done to it;
            usually empty.
        fallback_reason: why scikit-learn's digits were taken instead of MNIST; else empty.
    """

    name: str
    sha256: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    fallback_reason: str = ""


class Contents(NamedTuple):
    """What the user's files hold, before it is split and named.

    Attributes:
        parts: the images and labels of `train`, and of `validation` and `test` where the files
            have them.
        class_names: as in `Dataset`.
        files: what was read, for people: the format and the names.
        values: the type, shape and range of the images before they became 28x28 bytes.
        notices: what was ignored, scaled, turned or otherwise decided.
        transposed: whether rows and columns of the images were exchanged.
    """

    parts: dict[str, Split]
    class_names: tuple[str, ...]
    files: str
    values: str
    notices: tuple[str, ...]
    transposed: bool = False
