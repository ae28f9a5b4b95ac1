"""The digits of scikit-learn, brought to the form of MNIST's."""

import numpy as np

from support.datasets import sklearn_digits


def test_digits_are_split_evenly_and_centred_as_mnist():
    images, labels = sklearn_digits.load()
    splits = sklearn_digits.split(images, labels)
    assert [len(split.images) for split in splits] == [1297, 200, 300]
    assert all(np.bincount(split.labels).min() >= len(split.labels) // 11 for split in splits)
    assert len(np.unique(np.concatenate([split.images for split in splits]), axis=0)) == 1797
    ink = images.reshape(-1, 28, 28).astype(float)
    assert images.max() == 255 and not ink[:, 0].any() and not ink[:, :, -1].any()
    rows = (ink.sum(2) @ np.arange(28)) / ink.sum((1, 2))
    assert np.abs(rows - 13.5).max() < 1.0  # centred by mass
