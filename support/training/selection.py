"""The epoch that is best on the validation images: which weights to keep, when to stop early.

With few training images a network overfits: the validation objective falls, then rises again. Every
save holds what is remembered here, so that a resumed run gives bit-identical results.
"""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from numpy.typing import NDArray


class BestEpoch:
    """Remembers the weights of the epoch with the lowest objective on the validation images.

    Args:
        variables: the weights that are trained.
        patience: epochs without improvement after which to stop; None: never.

    Attributes:
        epoch: the best epoch so far, counted from 1; 0: none yet.
        objective: the objective of that epoch on the validation images.
        last_objective: the objective of the last epoch on them.
    """

    def __init__(self, variables: Sequence[keras.Variable], patience: int | None = None) -> None:
        self.epoch, self.objective, self.last_objective = 0, 0.0, 0.0
        self._variables, self._patience = variables, patience
        self._weights = [np.zeros(variable.shape, np.float32) for variable in variables]

    def update(self, epoch: int, objective: float) -> None:
        """Remembers the weights if `epoch`, counted from 1, is the best so far."""
        self.last_objective = objective
        if self.epoch == 0 or objective < self.objective:
            self.epoch, self.objective = epoch, objective
            self._weights = [variable.numpy().copy() for variable in self._variables]

    def out_of_patience(self, epoch: int) -> bool:
        """Returns whether to stop after `epoch` epochs."""
        return self._patience is not None and epoch - self.epoch >= self._patience

    def select(self) -> None:
        """Gives the variables the weights of the best epoch."""
        for variable, value in zip(self._variables, self._weights, strict=True):
            variable.assign(value)

    def state(self) -> dict[str, NDArray]:
        """Returns the arrays to save."""
        arrays = {f"best_{i}": value for i, value in enumerate(self._weights)}
        arrays["best_epoch"] = np.asarray(np.int64(self.epoch))
        arrays["best_objective"] = np.asarray(np.float64(self.objective))
        arrays["last_objective"] = np.asarray(np.float64(self.last_objective))
        return arrays

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Continues from the arrays of a save."""
        self.epoch = int(state["best_epoch"])
        self.objective = float(state["best_objective"])
        self.last_objective = float(state["last_objective"])
        self._weights = [state[f"best_{i}"] for i in range(len(self._variables))]
