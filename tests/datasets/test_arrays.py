"""Ranges of numbers and shapes of images."""

import numpy as np
import pytest

from support.datasets import arrays
from support.errors import UserError


def scaled(numbers):
    """What the numbers of one image become."""
    array = np.asarray(numbers)
    values = arrays._range(array, "mine")
    return arrays._as_bytes(array, arrays.scale_of(values, "mine")).tolist()


def test_ranges():
    assert scaled([0, 7, 255]) == [0, 7, 255]
    assert scaled([0.0, 7.4, 255.0]) == [0, 7, 255]
    assert scaled([0, 0.5, 1]) == [0, 128, 255]
    assert scaled([-1.0, 0.0, 1.0]) == [0, 128, 255]
    assert scaled([False, True]) == [0, 255]
    assert scaled([0, 1]) == [0, 255]
    assert scaled([0, 8, 16]) == [0, 128, 255]
    assert scaled([0, 15]) == [0, 255]
    assert scaled([0, 100]) == [0, 100]
    assert scaled([0, 0]) == [0, 0]
    assert scaled([0, 65535]) == [0, 255]
    assert scaled([0, 1.0005]) == [0, 255], "rounding of whoever saved it"


@pytest.mark.parametrize("numbers", [[-5, 255], [0, 300], [0, 70_000], [-0.42, 2.8], [-0.4, 1.0]])
def test_other_ranges_are_refused(numbers):
    with pytest.raises(UserError, match=r"mine has pixel values from .*: expected 0 to 255 or 0"):
        scaled(numbers)


def test_all_fractions_of_bytes_come_back():
    whole = np.arange(256)
    for kind in (np.float16, np.float32, np.float64):
        assert scaled((whole / 255).astype(kind)) == whole.tolist()
        assert scaled((whole / 127.5 - 1).astype(kind)) == whole.tolist() or kind is np.float16


def test_layouts():
    found = arrays.layout_of((1, 28, 28))
    assert found and found.side == (28, 28) and found.channels == 1
    assert arrays.layout_of((28, 28, 1)) == found
    flat = arrays.layout_of((64,))
    assert flat and flat.side == (8, 8)
    first = arrays.layout_of((3, 32, 20))
    assert first and first.side == (32, 20) and first.channels_first
    last = arrays.layout_of((32, 20, 4))
    assert last and last.channels == 4 and not last.channels_first
    for shape in ((), (785,), (3072,), (2, 28, 28), (3, 3, 28, 28), (28, 2), (10_000, 28)):
        assert arrays.layout_of(shape) is None
