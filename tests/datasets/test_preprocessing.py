"""The geometry of MNIST: ink in 20x20, centred by mass in 28x28."""

import os

import numpy as np
import pytest
from scipy import ndimage

from support.datasets import preprocessing

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


@pytest.fixture(scope="module")
def digits():
    """The 100 test images of MNIST in this repository, uint8 (100, 28, 28)."""
    with np.load(os.path.join(ROOT, "better_weight", "mnist_test_100.npz")) as file:
        return file["x_test"].reshape(-1, 28, 28)


def test_a_preprocessed_image_and_its_negative_come_back_unchanged(digits):
    for digit in digits:
        for image in (digit, 255 - digit):
            np.testing.assert_array_equal(preprocessing.preprocess(image / 255), digit)


def test_an_enlarged_copy_comes_back_nearly_unchanged(digits):
    """Wherever it is on its page."""
    for digit in digits[:20]:
        page = np.pad(np.kron(255 - digit, np.ones((9, 9))), ((10, 70), (40, 5)), mode="edge")
        error = preprocessing.preprocess(page / 255).astype(float) - digit
        assert np.sqrt(np.mean(error**2)) < 0.1 * 255


def test_the_aspect_is_kept_and_the_longer_side_becomes_20():
    page = np.zeros((300, 300))
    page[50:250, 30:80] = 1
    rows, columns = np.nonzero(preprocessing.preprocess(page))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 5)


def test_an_image_off_the_middle_is_centred(digits):
    """It has the size of MNIST's images, but is not preprocessed."""
    for digit in digits[:20]:
        moved = preprocessing.preprocess(np.roll(digit, (-3, -2), (0, 1)) / 255)
        np.testing.assert_allclose(ndimage.center_of_mass(moved), (14, 14), atol=1)
        shifts = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
        errors = [np.roll(moved, shift, (0, 1)).astype(int) - digit for shift in shifts]
        assert min(np.sqrt(np.mean(error**2)) for error in errors) < 0.1 * 255


def test_thin_strokes_become_as_thick_as_mnists():
    """A ballpoint line of 1/60 of the digit's height would vanish at 20 pixels."""
    page = np.ones((400, 400))
    page[100:340, 150:154] = 0
    page[336:340, 150:290] = 0
    image = preprocessing.preprocess(page)
    assert image.max() == 255 and (image[14] > 100).sum() == 2
    thick = np.ones((400, 400))
    thick[100:340, 150:190] = 0
    thick[300:340, 150:290] = 0
    assert 3 <= (preprocessing.preprocess(thick)[10] > 100).sum() <= 4


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (50, 90)])
def test_a_page_of_one_colour_is_refused(level, shape):
    with pytest.raises(ValueError, match="the page is blank"):
        preprocessing.preprocess(np.full(shape, level))


def test_centre_by_mass_moves_whole_pixels_and_stays_inside():
    image = np.zeros((20, 20), np.uint8)
    image[4:8, 10:12] = 200
    framed = preprocessing.centre_by_mass(image, 14)
    assert framed.shape == (28, 28) and framed.dtype == np.uint8
    np.testing.assert_array_equal(np.argwhere(framed)[[0, -1]], [[12, 14], [15, 15]])
    # Only as far as the image fits: its lower right corner cannot leave the frame.
    image[:] = 0
    image[0, 0] = 255
    assert preprocessing.centre_by_mass(image, 14)[8, 8] == 255
    # One middle for rows, another for columns.
    image[0, 0], image[10, 10] = 0, 255
    assert preprocessing.centre_by_mass(image, np.array([12, 15]))[12, 15] == 255
