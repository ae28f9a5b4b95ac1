"""Labels of any type, encoded as bytes."""

import numpy as np
import pytest

from support.datasets import labels
from support.errors import UserError


def encode(*parts):
    found = labels.encode({str(index): np.array(part) for index, part in enumerate(parts)}, "mine")
    return [array.tolist() for array in found.parts.values()], found.class_names


def test_small_whole_numbers_stay():
    assert encode([0, 255, 3], [7]) == ([[0, 255, 3], [7]], ())
    assert encode([1.0, 26.0]) == ([[1, 26]], ())
    assert encode(["10", "2"]) == ([[10, 2]], ())
    assert encode([True, False]) == ([[1, 0]], ())


def test_others_are_numbered_in_their_order_with_names():
    assert encode([-5, 1000], [3]) == ([[0, 2], [1]], ("-5", "3", "1000"))
    assert encode(["cat10", "cat9"], ["ape"]) == ([[2, 1], [0]], ("ape", "cat9", "cat10"))
    assert encode(["a010", "a9"]) == ([[1, 0]], ("a9", "a010"))
    assert encode(["1", "b"], [1]) == ([[0, 1], [0]], ("1", "b"))
    assert encode([b"b", b"a"]) == ([[1, 0]], ("a", "b"))


def test_words_for_digits_become_the_digits():
    assert encode(["seven", "Zero"]) == ([[7, 0]], labels.DIGIT_WORDS)
    assert encode(["seven", "eleven"]) == ([[1, 0]], ("eleven", "seven"))


def test_refusals():
    with pytest.raises(UserError, match=r"mine has the label 0\.5"):
        encode([0.5])
    with pytest.raises(UserError, match="mine has the label nan"):
        encode([np.nan])
    with pytest.raises(UserError, match=r"2 images without a label, the first of them image 2: "):
        encode(["a", ""], ["  ", "b"])
    with pytest.raises(UserError, match=r"^mine has 300 different labels"):
        encode(list(range(300)))
    with pytest.raises(UserError, match=r"^mine has 257 different labels"):
        encode([f"class {number}" for number in range(257)])
    assert len(encode([f"class {number}" for number in range(256)])[1]) == 256


def test_one_for_each_image():
    column = np.arange(4)[:, None]
    for array in (column, column.T, column.ravel(), np.eye(4), np.eye(4, dtype=bool)):
        found, notice = labels.one_each(array, 4, "mine")
        assert found.tolist() == [0, 1, 2, 3] and notice == ""
    several, notice = labels.one_each(np.array([[5, 1], [6, 1], [7, 0]]), 3, "mine")
    assert several.tolist() == [5, 6, 7] and "2 columns" in notice
    with pytest.raises(UserError, match=r"shape \(4,\) for 5 images"):
        labels.one_each(np.arange(4), 5, "mine")


def test_classes_are_chosen_by_their_names():
    names = ("eight", "five", "letter A")
    assert labels.labels_of(["Five", "letter a", "eight"], names) == [1, 2, 0]
    # A number is not taken for a place in a list that nobody sees.
    with pytest.raises(UserError, match=r"has no class '1': choose from eight five letter A"):
        labels.labels_of(["1"], names)
    assert labels.labels_of(["2", "Nine"], labels.DIGIT_WORDS) == [2, 9]
    assert labels.labels_of(["0", "255"], ()) == [0, 255]
    assert labels.labels_of([], names) == []
