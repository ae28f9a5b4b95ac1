"""What names say about files and arrays."""

import pytest

from support.datasets import labels, roles

NAMES = {
    "train-images-idx3-ubyte": ("train", "images", ""),
    "t10k-labels.idx1-ubyte.gz": ("test", "labels", ""),
    "emnist-letters-test-images-idx3-ubyte.gz": ("test", "images", "emnist letters"),
    "kmnist-train-imgs.npz": ("train", "images", "kmnist"),
    "k49-test-labels.npz": ("test", "labels", "k 49"),
    "X_train": ("train", "images", ""),
    "ytest": ("test", "labels", ""),
    "Xtr": ("train", "images", ""),
    "trainLabels": ("train", "labels", ""),
    "testimages": ("test", "images", ""),
    "x_val": ("validation", "images", ""),
    "mnist_train.csv": ("train", "", "mnist"),
    "fashion-mnist_test.csv": ("test", "", "fashion mnist"),
    "TRAINING": ("train", "", ""),
    "trainingSet": ("train", "", ""),
    "x": ("", "images", ""),
    "contest.npz": ("", "", "contest"),
    "mine2.npz": ("", "", "mine 2"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert roles.of(name) == NAMES[name]


def test_natural_order():
    names = ["img_10", "img_2", "IMG_1", "a", "img_02b", "9" * 5000]
    assert sorted(names, key=labels.natural) == [
        "9" * 5000,
        "a",
        "IMG_1",
        "img_2",
        "img_02b",
        "img_10",
    ]
