"""A run in progress: where its saves go, who may write there, and whether it continues.

    with run_folder.RunFolder("weight_train", "log", wanted) as folder:
        step = folder.begin(settings, vae, optimizer, sums, crew)   # the first save, or the newest
        folder.save(step, epochs_done, vae, optimizer, sums)
        folder.finish(vae, posterior)

A save is one file, and its rename is the only commit there is (support/files.py): no other file
has to agree with it. The order is: event files on disk, the save, the removal of older ones.
"""

import contextlib
import importlib.metadata
import os
import platform
import time
import uuid

import filelock
import numpy as np

from support import NotFinite, UserError, curves, files, weights

KEPT = 2
WEIGHTS_LOCK, LOG_LOCK = ".weights.lock", ".log.lock"


class RunFolder:
    """The weights folder and the log folder of one run.

    Args:
        folder: of weights.
        log_dir: of curves.
        wanted: dict of dicts that a run in the folder must agree with, as `run.json` has them.
        overwrite: begin anew, whatever is there.
        writes: False for a worker that is not the chief: it only reads, without the locks.

    Attributes:
        run: `run.json` of the run to go on with; None: a new one.

    Raises:
        UserError: the folders hold another run, or a damaged one. No folder is made by then.
    """

    def __init__(self, folder, log_dir, wanted, overwrite=False, writes=True):
        self.path, self.log_dir = folder, log_dir
        self._wanted, self._overwrite, self._writes = wanted, overwrite, writes
        self._locks = contextlib.ExitStack()
        self._lock_files = {}
        self._saved_at = time.monotonic()
        self.run = self._held()

    @property
    def finished(self):
        """Whether the run is done and its weights are at the top of the folder."""
        return self.run is not None and self.run["posterior"] is not None

    def _held(self):
        run = None if self._overwrite else weights.read_run(self.path)
        if run is not None:
            require_same(run, self._wanted, self.path)
        if self._writes and not self._overwrite and not (run and run["posterior"]):
            curves.require_free(self.log_dir, run and run["run_id"])
        return run

    def __enter__(self):
        if self._writes:
            for folder, name in ((self.path, WEIGHTS_LOCK), (self.log_dir, LOG_LOCK)):
                files.writable_folder(folder)
                self._lock(folder, name)
            for folder in (self.path, os.path.join(self.path, weights.CHECKPOINTS)):
                files.sweep(folder)
            # Another run may have come between the first look and the locks.
            self.run = self._held()
        return self

    def __exit__(self, *_):
        self._locks.close()

    def _lock(self, folder, name):
        path = os.path.join(folder, name)
        try:
            self._locks.enter_context(filelock.FileLock(path, blocking=False))
        except filelock.Timeout:
            raise UserError(
                f"{folder} is in use by another run: wait for it, or choose another folder"
            ) from None
        self._lock_files[path] = os.stat(path).st_ino

    def _require_locks(self):
        """Raises where somebody has removed or replaced a folder under this run."""
        for path, inode in self._lock_files.items():
            if not os.path.exists(path) or os.stat(path).st_ino != inode:
                raise UserError(
                    f"{os.path.dirname(path)} was removed or replaced while this run used it: "
                    "nothing more is written; run the same command again"
                )

    def begin(self, settings, vae, optimizer, sums, crew):
        """Makes the first save of a new run, and loads the newest one, whoever wrote it.

        Args:
            settings: dict of what `run.json` of a new run tells beside its id and versions.
            vae, optimizer: both built; filled from the save.
            sums: dict of arrays to keep; filled from the save.
            crew: the `team.Team` whose workers must all see this folder.

        Returns:
            How many steps are done.
        """
        if self.run is None and self._writes:
            if self._overwrite:
                self._clear()
            run_id = uuid.uuid4().hex
            self.run = settings | {"format": weights.FORMAT, "run_id": run_id, "posterior": None}
            self.run["versions"] = versions()
            self.save(0, 0, vae, optimizer, sums)
        crew.wait()
        found = weights.read_run(self.path) or {"run_id": "0", "step": 0}
        crew.require_same(
            (int(found["run_id"][:12], 16), found["step"]),
            f"{self.path} is not one folder that all workers see, or one of them was given other "
            "flags: name a shared folder, and give all the same flags",
        )
        self._load(vae, optimizer, sums)
        if self._writes:
            curves.claim(self.log_dir, self.run["run_id"])
        return self.run["step"]

    def _load(self, vae, optimizer, sums):
        state = _training_arrays(optimizer, sums)
        expected = {name: (array.shape, array.dtype) for name, array in state.items()}
        self.run, arrays = weights.read(self.path, training_shapes=expected)
        require_same(self.run, self._wanted, self.path)
        training = arrays["training"]
        count = len(optimizer.variables)
        weights.fill(vae, arrays)
        optimizer.load_own_variables({str(i): training[f"optimizer_{i}"] for i in range(count)})
        if int(optimizer.iterations.numpy()) != self.run["step"]:
            raise UserError(f"{self.path}: the newest save counts its steps in two ways")
        sums |= {name: training[name] for name in sums}

    def seconds_since_save(self):
        """Seconds since the last save, or since the run began here."""
        return time.monotonic() - self._saved_at

    def save(self, step, epochs_done, vae, optimizer, sums):
        """Writes the save of a step, then drops older ones; a reader finds one good save always.

        Args:
            step, epochs_done: how many are done.
            vae, optimizer, sums: as `begin` takes them.

        Raises:
            NotFinite: the weights are not finite; nothing is written then.
            UserError: the folder cannot be written.
        """
        # The last step's loss is that of the weights before it, so this looks at them.
        if not all(np.isfinite(weight.numpy()).all() for weight in vae.trainable_variables):
            raise self._not_finite(step)
        if not self._writes:
            return
        self.run = self.run | {"step": step, "epochs_done": epochs_done}
        path = weights.checkpoint(self.path, step)
        with files.disk_errors(self.path), contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(path))
            files.sync(self.path)
        training = _training_arrays(optimizer, sums)
        weights.write(path, vae, self.run, training, self._require_locks)
        self._saved_at = time.monotonic()
        older = [other for other in weights.steps(self.path) if other < step]
        later = [other for other in weights.steps(self.path) if other > step]
        self._remove(later[::-1] + older[: max(0, len(older) - KEPT + 1)])

    def require_finite(self, step, losses):
        """Raises `NotFinite` where a loss of the steps after `step`, (steps,), is not finite."""
        if not np.isfinite(losses).all():
            raise self._not_finite(step + int(np.argmin(np.isfinite(losses))) + 1)

    def _not_finite(self, step):
        saved = weights.steps(self.path)
        kept = f"the save of step {saved[-1]} is" if saved else "no save is"
        return NotFinite(
            f"the loss is no longer finite at step {step}: {kept} in {self.path}; try a smaller "
            "--learning_rate with another --save_weight_dir"
        )

    def finish(self, vae, posterior):
        """Writes the finished weights, then removes the saves of the way there."""
        if not self._writes:
            return
        self.run = self.run | {"posterior": posterior}
        weights.write(weights.finished(self.path), vae, self.run, before_commit=self._require_locks)
        self._remove(weights.steps(self.path))
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(self.path, weights.CHECKPOINTS))

    def _clear(self):
        """Removes the weights and saves of an earlier run, and nothing else."""
        with files.disk_errors(self.path):
            with contextlib.suppress(FileNotFoundError):
                os.remove(weights.finished(self.path))
            self._remove(weights.steps(self.path)[::-1])

    def _remove(self, steps):
        with files.disk_errors(self.path):
            for step in steps:
                os.remove(weights.checkpoint(self.path, step))


def _training_arrays(optimizer, sums):
    """Returns what a save needs beside weights to be resumed: a dict of arrays."""
    store = {}
    optimizer.save_own_variables(store)
    arrays = {f"optimizer_{name}": np.asarray(array) for name, array in store.items()}
    return arrays | {name: np.asarray(array) for name, array in sums.items()}


def versions():
    """Returns the versions of Python and of the packages that shape a result, by name."""
    packages = ("tensorflow", "keras", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version()} | found


def require_same(run, wanted, folder):
    """Raises a `UserError` that names the first setting in which two runs differ.

    Args:
        run: `run.json` of the run in `folder`.
        wanted: dict of dicts, of which `run` must hold every value.
    """
    for part, settings in wanted.items():
        for name, value in settings.items():
            held = run.get(part, {}).get(name)
            if held != value or type(held) is not type(value):
                what = f"{part} {name}" if part == "dataset" else name
                raise UserError(
                    f"{folder} holds another run, with {what} {held!s:.80} where this one has "
                    f"{value!s:.80}: choose another --save_weight_dir, --overwrite it, or start a "
                    "new run from its weights with --load_weight_dir"
                )
