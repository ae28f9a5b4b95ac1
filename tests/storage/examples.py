"""A small model, its record and a fitted prior, for the tests of storage."""

import keras
import numpy as np

import model
from support.analysis.fitted_prior import PriorArrays
from support.records import Architecture, DatasetRecord, Posterior, PriorRecord, RunRecord

ARCHITECTURE = Architecture((6, 5, 5), 2, "tanh", residual=True)
RECORD = RunRecord(
    run_id="0123abcd0123abcd",
    dataset=DatasetRecord("digits", "beef"),
    architecture=ARCHITECTURE,
    training={"seed": 3, "learning_rate": 0.003, "limit": None, "binarize": "none"},
    step=24,
    epochs_done=2,
    versions={"python": "3.12.1"},
)
FINISHED = Posterior((0.5, -0.5), (1.0, 0.0), (2.0, 0.25)), PriorRecord(1.5)
PRIOR = PriorArrays(
    active=np.array([0, 1]),
    labels=np.array([2, 7], np.uint8),
    weights=np.array([0.25, 0.75]),
    means=np.array([[0.5, 1.0], [-1.0, 0.0]]),
    covariances=np.stack([np.eye(2), 2 * np.eye(2)]),
)


def new_vae(seed=0):
    """A model whose initial weights follow from a seed."""
    keras.utils.set_random_seed(seed)
    return model.VAE(*ARCHITECTURE)


def weights_of(found):
    """The weights that were read, the encoder's first."""
    return [*found.encoder, *found.decoder]
