"""Loads the 1,797 handwritten digits that are part of scikit-learn, as 28x28 images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from support.datasets.preprocessing import centre_by_mass
from support.datasets.types import PIXELS, SIDE, Split

TEST_IMAGES, VALIDATION_IMAGES = 300, 200


def load() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns all images and labels.

    Returns:
        The images, uint8 (1797, 784), scaled from 8x8 to 20x20 and centred by mass in 28x28; and
        the labels, uint8 (1797,).
    """
    from scipy import ndimage
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) * (255 / 16)
    scaled = ndimage.zoom(images, (1, 2.5, 2.5), order=3, mode="nearest", grid_mode=True)
    scaled = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    centred = [centre_by_mass(image, (SIDE - 1) / 2) for image in scaled]
    return np.stack(centred).reshape(-1, PIXELS), labels.astype(np.uint8)


def split(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[Split, Split, Split]:
    """Returns train, validation and test parts, stratified by label.

    The split is fixed: it is part of the data set and does not depend on --seed.
    """
    from sklearn.model_selection import train_test_split

    everything = np.arange(len(labels))
    rest, test = train_test_split(
        everything, test_size=TEST_IMAGES, stratify=labels, random_state=0
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION_IMAGES, stratify=labels[rest], random_state=0
    )
    return (
        Split(images[train], labels[train]),
        Split(images[validation], labels[validation]),
        Split(images[test], labels[test]),
    )
