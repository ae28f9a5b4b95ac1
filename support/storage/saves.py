"""The saves of a run: what is written, in which order, and what is removed afterwards.

A save is one file (support/storage/weights_file.py), and the rename that gives it its name is the
only commit: no other file has to agree with it. The order is: the caller syncs the event files; the
new save is written to a private folder, synced and renamed; its folder is synced; older saves are
removed. So a reader finds a valid save at every moment, and a kill at any moment loses none.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from support import files, records
from support.storage import weights_file
from support.storage.locks import FolderLocks

if TYPE_CHECKING:
    import model
    from support.analysis import fitted_prior

# The newest save, and the one before it in case the newest is damaged.
SAVES_KEPT = 2


class Saves:
    """The saves and the finished weights in one folder.

    Args:
        folder: the folder of weights.
        locks: the locks, which must be held for any write; so a folder that was replaced is never
            written to.
    """

    def __init__(self, folder: str, locks: FolderLocks) -> None:
        self.folder, self._locks = folder, locks

    def write(
        self, vae: "model.VAE", record: records.RunRecord, training: Mapping[str, NDArray]
    ) -> None:
        """Writes the save of `record.step`, then removes all others except the one before it.

        Args:
            vae: the model.
            record: the record of the run at this step.
            training: what is needed besides the weights to continue the run.

        Raises:
            UserError: it cannot be written; older saves are unchanged.
        """
        self._locks.require_held()
        step = record.step
        path = weights_file.save_path(self.folder, step)
        with files.disk_errors(self.folder):
            files.make_folder(os.path.dirname(os.path.abspath(path)))
        check = self._locks.require_held
        weights_file.write(path, vae, record, training=training, before_commit=check)
        steps = weights_file.saved_steps(self.folder)
        # Later saves are damaged: the run continued from one before them.
        later = [saved for saved in steps if saved > step]
        earlier = [saved for saved in steps if saved < step]
        self._remove([*reversed(later), *earlier[: len(earlier) - (SAVES_KEPT - 1)]])

    def write_finished(
        self,
        vae: "model.VAE",
        record: records.RunRecord,
        prior: "fitted_prior.PriorArrays | None",
    ) -> None:
        """Writes the finished weights, then removes all saves.

        Args:
            vae: the model.
            record: the record of the finished run.
            prior: the fitted prior; None: there is none.
        """
        path, check = weights_file.finished_path(self.folder), self._locks.require_held
        weights_file.write(path, vae, record, prior=prior, before_commit=check)
        self.remove_all()

    def remove_all(self) -> None:
        """Removes all saves of a finished run; a kill may have left some."""
        self._remove(weights_file.saved_steps(self.folder))
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(self.folder, weights_file.CHECKPOINTS))

    def remove_earlier_run(self, kept_step: int | None = None) -> None:
        """Removes an earlier run's weights, and nothing else.

        The finished weights are removed first, then the saves, from the newest to the oldest: a
        kill in between leaves an unfinished run or none.

        Args:
            kept_step: the step of the new run's save, which is kept; None: it has none.
        """
        with files.disk_errors(self.folder), contextlib.suppress(FileNotFoundError):
            files.patiently(os.remove, weights_file.finished_path(self.folder))
        steps = weights_file.saved_steps(self.folder)[::-1]
        self._remove([step for step in steps if step != kept_step])

    def _remove(self, steps: Sequence[int]) -> None:
        with files.disk_errors(self.folder):
            for step in steps:
                # A save that another process has open is left for the next call to remove.
                with contextlib.suppress(PermissionError):
                    files.patiently(os.remove, weights_file.save_path(self.folder, step))
