"""The saves of a run: what is written, in which order, and what is removed afterwards.

A save is one file (support/storage/weights_file.py), and the rename that gives it its name is the
only commit: no other file has to agree with it. The order is: event files on disk (the caller's
part), the new save in a private folder, fsync, rename, fsync of the folder, removal of older saves.
So a reader finds a good save at every moment, and a kill at any moment loses none.
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
        folder: of weights.
        locks: held while anything is written; a folder that was replaced is never written to.
    """

    def __init__(self, folder: str, locks: FolderLocks) -> None:
        self.folder, self._locks = folder, locks

    def write(
        self, vae: "model.VAE", record: records.RunRecord, training: Mapping[str, NDArray]
    ) -> None:
        """Writes the save of `record.step`, then removes all others but the one before it.

        Args:
            vae: the model.
            record: of the run at this step.
            training: what a run needs beside its weights to be continued.

        Raises:
            UserError: it cannot be written; older saves are as they were.
        """
        self._locks.require_held()
        step = record.step
        path = weights_file.save_path(self.folder, step)
        with files.disk_errors(self.folder):
            files.make_folder(os.path.dirname(os.path.abspath(path)))
        check = self._locks.require_held
        weights_file.write(path, vae, record, training=training, before_commit=check)
        steps = weights_file.saved_steps(self.folder)
        # Later saves are damaged ones, past which this run continued.
        later = [saved for saved in steps if saved > step]
        earlier = [saved for saved in steps if saved < step]
        self._remove([*reversed(later), *earlier[: len(earlier) - (SAVES_KEPT - 1)]])

    def write_finished(
        self,
        vae: "model.VAE",
        record: records.RunRecord,
        prior: "fitted_prior.PriorArrays | None",
    ) -> None:
        """Writes the finished weights, then removes the saves of the way there.

        Args:
            vae: the model.
            record: of the finished run.
            prior: the fitted prior; None: there is none.
        """
        path, check = weights_file.finished_path(self.folder), self._locks.require_held
        weights_file.write(path, vae, record, prior=prior, before_commit=check)
        self.remove_all()

    def remove_all(self) -> None:
        """Removes the saves of a finished run: a kill may have left some."""
        self._remove(weights_file.saved_steps(self.folder))
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(self.folder, weights_file.CHECKPOINTS))

    def remove_earlier_run(self, kept_step: int | None = None) -> None:
        """Removes an earlier run's weights, and nothing else.

        First what makes it finished, then its saves, the newest first: a kill in between leaves
        an unfinished run or none.

        Args:
            kept_step: of the new run's save, which stays; None: it has none.
        """
        with files.disk_errors(self.folder), contextlib.suppress(FileNotFoundError):
            files.patiently(os.remove, weights_file.finished_path(self.folder))
        steps = weights_file.saved_steps(self.folder)[::-1]
        self._remove([step for step in steps if step != kept_step])

    def _remove(self, steps: Sequence[int]) -> None:
        with files.disk_errors(self.folder):
            for step in steps:
                # What another process has open is left to the next save.
                with contextlib.suppress(PermissionError):
                    files.patiently(os.remove, weights_file.save_path(self.folder, step))
