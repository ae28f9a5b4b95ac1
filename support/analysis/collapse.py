"""Posterior collapse: z carries no information, and the decoder returns one image for all z.

    notice(record)            # of finished weights; an empty string if nothing is wrong

It happens where the KL term outweighs what the encoder could gain in reconstruction, as with the L2
norm and --beta 1: the posterior q(z | x) becomes N(0, I) for every image.
"""

from collections.abc import Mapping

import numpy as np

from support import records
from support.analysis import fitted_prior

# Steps after which an active latent dimension is expected in any run that will have one: with a
# useful weight of the KL term, the first appears within 50 steps.
STEPS_BEFORE_JUDGED = 200
# The weight of the KL term to try with the L2 norm; bench/EXPERIMENTS.md shows why.
L2_BETA = 0.05


def active_units(posterior: records.Posterior) -> int:
    """Returns how many latent dimensions are active, from moments over the training images."""
    return int(np.sum(np.square(posterior.mu_std) > fitted_prior.ACTIVE_VARIANCE))


def notice(record: records.RunRecord) -> str:
    """Returns a warning if no latent dimension of finished weights is active, otherwise ""."""
    if record.posterior is None or active_units(record.posterior):
        return ""
    return warning(record)


def warning(record: records.RunRecord) -> str:
    """Returns the warning that the posterior of a run has collapsed, with the cause.

    Args:
        record: the record of the run, at a step where no latent dimension is active.
    """
    if record.step < STEPS_BEFORE_JUDGED:
        cause = f"After only {record.step} steps this may change: train longer."
    else:
        flags, advice = _cause(record.training)
        cause = (
            f"The KL term outweighs the reconstruction term ({flags}): train again with {advice}, "
            "in new folders."
        )
    return (
        "WARNING: the posterior has collapsed. No latent dimension is active, so all "
        f"reconstructions are nearly the same image, and so are all samples. {cause}"
    )


def _cause(training: Mapping[str, records.Setting]) -> tuple[str, str]:
    """Returns the flags that caused a collapse, and what to try instead."""
    recon_loss, beta = training.get("recon_loss", "bce"), training.get("beta", 1.0)
    assert isinstance(beta, int | float)
    better = L2_BETA if recon_loss == "l2" else 1.0
    if beta <= better:
        better = beta / 10
    return f"--recon_loss {recon_loss}, --beta {beta:g}", f"--beta {better:g}"


def print_notice(record: records.RunRecord) -> None:
    """Prints what `notice` returns, if it returns anything."""
    if text := notice(record):
        print(text)
