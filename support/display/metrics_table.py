"""The table of metrics that train.py and eval.py print."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.analysis.metrics import Figures

# Every metric that the table may show, with its unit.
UNITS = {
    "loss_total": "nats, -ELBO",
    "loss_total_fitted": "nats, -ELBO under the fitted prior",
    "loss_bce": "nats",
    "loss_KLD": "nats",
    "loss_l2": "Euclidean norm of the error",
    "RMSE": "pixel intensities in [0, 1], z sampled",
    "RMSE_mean": "pixel intensities in [0, 1], z = mu",
    "nll": "nats, of binarized images",
    "nll_fitted": "nats, the same under the fitted prior",
    "prior_accuracy": "fraction classified correctly by the fitted prior",
    "probe_accuracy": "fraction classified correctly by a linear classifier of mu",
}


def print_metrics(figures: "Figures", active_units: int) -> None:
    """Prints the mean of each metric over the images, with its standard error.

    Args:
        figures: the metrics of each image.
        active_units: how many latent dimensions are active on these images.
    """
    print(f"{'':<18}{'mean':>10}  {'std. error':>10}  unit")
    means, errors = figures.means(), dict.fromkeys(figures.values, math.nan)
    if len(figures.mu) > 1:
        errors = figures.standard_errors()
    for name, unit in UNITS.items():
        if name in means:
            print(f"{name:<18}{means[name]:>10.4f}  {errors[name]:>10.4f}  {unit}")
    print(f"{'active units':<18}{active_units:>10}  of {figures.mu.shape[1]}")
