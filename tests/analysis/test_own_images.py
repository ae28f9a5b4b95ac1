"""The user's own images among the test images: shares, and images that show no class."""

import numpy as np
import pytest

from support.analysis import own_images
from support.analysis.metrics import Figures
from support.datasets.photos import Digit


def test_the_share_of_test_images_with_a_higher_elbo():
    test_elbo = np.array([60.0, 70.0, 80.0, 90.0])
    assert own_images.share_higher(test_elbo, 65.0) == 0.75
    assert own_images.share_higher(test_elbo, 90.0) == 0.0
    assert own_images.share_higher(test_elbo, 50.0) == 1.0


def test_none_of_these_is_a_higher_elbo_than_all_but_1_in_1000():
    test_elbo = np.arange(10_000.0)
    assert own_images.is_none_of_these(test_elbo, 9989.5)  # 10 of 10,000 are higher
    assert not own_images.is_none_of_these(test_elbo, 9988.5)
    assert not own_images.is_none_of_these(test_elbo, 5.0)
    # With few test images, none may be as high.
    assert own_images.is_none_of_these(test_elbo[:100], 99.5)
    assert not own_images.is_none_of_these(test_elbo[:100], 98.5)


@pytest.mark.parametrize(
    "label, probability, class_names, says",
    [
        (7, 0.5678, (), "7 (p = 0.57)"),
        (7, 0.9901, (), "7 (p > 0.99)"),
        (1, 0.75, ("cat", "dog"), "dog (p = 0.75)"),
    ],
)
def test_a_class_comes_with_its_probability(label, probability, class_names, says):
    figures = Figures(
        values={"loss_total": np.array([75.0]), "RMSE_mean": np.array([0.25])},
        mu=np.array([[1.0, 2.0]], np.float32),
        log_var=np.zeros((1, 2), np.float32),
        predicted_label=np.array([label], np.uint8),
        probability=np.array([probability], np.float32),
    )
    digit = Digit("scans/it.png", "it.png", np.zeros((9, 9), np.uint8), np.ones(784, np.uint8))
    image = own_images.compare(digit, digit.pixels, figures, np.array([70.0, 80.0, 90.0, 74.0]))
    assert image.classification == "-"  # without a fitted prior
    image = image.classified(figures, class_names)
    assert image.classification == says
    found = image.to_json()
    assert found.pop("probability") == pytest.approx(probability)
    assert found == {
        "file": "scans/it.png",
        "name": "it.png",
        "loss_total": 75.0,
        "RMSE_mean": 0.25,
        "share_of_test_images_with_higher_loss_total": 0.5,
        "none_of_these": False,
        "predicted_label": label,
    }
    assert image._replace(is_none_of_these=True).classification == "none of these"
