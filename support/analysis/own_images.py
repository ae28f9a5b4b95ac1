"""The user's own images, compared with the test images."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from support.analysis.metrics import Figures
    from support.datasets.photos import Digit

# An image whose -ELBO is higher than that of all but this fraction of the test images is judged to
# belong to none of the classes. With fewer than 1,000 test images it must be above all of them.
RAREST = 1 / 1000


class OwnImage(NamedTuple):
    """One digit of the user's own pictures, with its metrics.

    Attributes:
        digit: where it comes from, and how it was preprocessed.
        seen: its pixels as the model sees them, uint8 (784,).
        figures: all its metrics, as those of one image.
        mu: mean of q(z | x), float32 (latent_dim,).
        loss_total: its -ELBO, nats.
        RMSE_mean: the RMSE of its reconstruction from z = mu.
        share_higher: the fraction of the test images with a higher -ELBO.
        is_none_of_these: whether its -ELBO is too high for an image of any class.
        predicted_label: the most probable class under the fitted prior; None if it has no classes.
        probability: p(predicted_label | z = mu); None likewise.
        class_name: the name of the predicted label.
    """

    digit: "Digit"
    seen: NDArray[np.uint8]
    figures: "Figures"
    mu: NDArray[np.float32]
    loss_total: float
    RMSE_mean: float
    share_higher: float
    is_none_of_these: bool
    predicted_label: int | None = None
    probability: float | None = None
    class_name: str = ""

    def classified(self, figures: "Figures", class_names: tuple[str, ...]) -> "OwnImage":
        """Returns the image with its class.

        Args:
            figures: its metrics, with the class that the fitted prior predicts.
            class_names: the names of the labels; empty for digits.
        """
        assert figures.predicted_label is not None, "needs a fitted prior"
        assert figures.probability is not None, "needs a fitted prior"
        label = int(figures.predicted_label[0])
        return self._replace(
            predicted_label=label,
            probability=float(figures.probability[0]),
            class_name=class_names[label] if class_names else str(label),
        )

    @property
    def classification(self) -> str:
        """The predicted class with its probability, or that it is none of the classes."""
        if self.is_none_of_these:
            return "none of these"
        if self.probability is None:
            return "-"
        # Rounded to 1.00, it would look certain.
        bound = "p > 0.99" if self.probability > 0.99 else f"p = {self.probability:.2f}"
        return f"{self.class_name} ({bound})"

    def to_json(self) -> dict[str, Any]:
        """Returns its entry in metrics.json."""
        return {
            "file": self.digit.file,
            "name": self.digit.name,
            "loss_total": self.loss_total,
            "RMSE_mean": self.RMSE_mean,
            "share_of_test_images_with_higher_loss_total": self.share_higher,
            "none_of_these": self.is_none_of_these,
            "predicted_label": self.predicted_label,
            "probability": self.probability,
        }


def compare(
    digit: "Digit",
    seen: NDArray[np.uint8],
    figures: "Figures",
    test_elbo: NDArray[np.floating],
) -> OwnImage:
    """Compares one of the user's digits with the test images.

    Args:
        digit: the digit, from the user's pictures.
        seen: its pixels as the model sees them, uint8 (784,).
        figures: the metrics of this one image.
        test_elbo: -ELBO of each test image, (n,).
    """
    elbo = figures.values["loss_total"][0]
    return OwnImage(
        digit=digit,
        seen=seen,
        figures=figures,
        mu=figures.mu[0],
        loss_total=float(elbo),
        RMSE_mean=float(figures.values["RMSE_mean"][0]),
        share_higher=share_higher(test_elbo, elbo),
        is_none_of_these=is_none_of_these(test_elbo, elbo),
    )


def share_higher(test_elbo: NDArray[np.floating], elbo: float) -> float:
    """Returns the fraction of the test images whose -ELBO is higher than `elbo`."""
    return float(np.mean(test_elbo > elbo))


def is_none_of_these(test_elbo: NDArray[np.floating], elbo: float) -> bool:
    """Whether `elbo` is higher than the -ELBO of all but 1 in 1,000 test images."""
    return float(np.mean(test_elbo >= elbo)) <= RAREST
