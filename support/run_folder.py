"""A run in progress: where its saves go, who may write there, and whether it continues.

    with run_folder.RunFolder("weight_train", "log", wanted) as folder:
        step = folder.begin(settings, vae, optimizer, sums, crew)   # the first save, or the newest
        folder.save(step, epochs_done, vae, optimizer, sums)
        folder.finish(vae, posterior, *prior.fit(...))     # the finished weights

What a save and a weights folder hold stands in support/weights.py. A save is one file, and its
rename is the only commit there is (support/files.py): no other file has to agree with it. The order
is: event files on disk, the save, the removal of older ones.
"""

import contextlib
import importlib.metadata
import os
import platform
import time
import uuid

import filelock
import numpy as np

from support import NotFinite, UserError, cli, curves, files, weights


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
        self._locks, self._inodes = contextlib.ExitStack(), {}
        self._source, self._start, self._saved_at = None, None, time.monotonic()
        self._look()

    @property
    def finished(self):
        """Whether the run is done and its weights are at the top of the folder."""
        return self.run is not None and self.run["posterior"] is not None

    def _look(self):
        """Finds the run to go on with, and refuses another one."""
        if os.path.isfile(self.path):
            raise UserError(f"{self.path} is a file: choose a folder")
        self.run = None if self._overwrite else weights.read_run(self.path)
        if self.run is not None:
            require_same(self.run, self._wanted, self.path)
        if self._writes and not self.finished:
            curves.require_free(self.log_dir, self.run and self.run["run_id"], self._overwrite)

    def starting_point(self, source, network, typed):
        """Returns the architecture of the run; keeps the weights that it starts from, if given.

        Args:
            source: a folder or file with given weights; empty: a new run starts from scratch.
            network: the architecture of a new run from scratch.
            typed: dict of settings of an architecture, with which given weights must agree.
        """
        inside, outside = os.path.realpath(source), os.path.realpath(self.path)
        if source and os.path.commonpath([inside, outside]) == outside:
            raise UserError(f"{source} lies in {self.path}, where the new run goes: choose another")
        if self.run or not source:
            return self.run["architecture"] if self.run else network
        run, self._start = weights.read(source)
        require_same(run, {"architecture": typed}, source)
        self._source = {"run_id": run["run_id"], "step": run["step"]}
        return run["architecture"]

    def __enter__(self):
        if not self._writes:
            return self
        with contextlib.ExitStack() as locks:
            places = [(self.path, ".weights.lock"), (self.log_dir, ".log.lock")]
            # Of a finished run the curves may have gone elsewhere.
            for folder, name in places[: 1 if self.finished else 2]:
                files.writable_folder(folder)
                path = os.path.join(folder, name)
                try:
                    locks.enter_context(filelock.FileLock(path, blocking=False))
                except filelock.Timeout:
                    advice = "wait for it, or choose another folder"
                    raise UserError(f"{folder} is in use by another run: {advice}") from None
                self._inodes[path] = os.stat(path).st_ino
                for place in (folder, os.path.join(folder, weights.CHECKPOINTS)):
                    files.sweep(place)
            # Another run may have come between the first look and the locks.
            self._look()
            self._locks = locks.pop_all()
        return self

    def __exit__(self, *_):
        self._locks.close()

    def _require_locks(self):
        """Raises where somebody has removed or replaced a folder under this run."""
        for path, inode in self._inodes.items():
            if not os.path.exists(path) or os.stat(path).st_ino != inode:
                raise UserError(f"{os.path.dirname(path)} was removed or replaced under this run")

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
            self.run |= {"source": self._source, "versions": versions()}
            if self._start:
                weights.fill(vae, self._start)
            self.save(0, 0, vae, optimizer, sums)
        crew.wait()
        found = weights.read_run(self.path) or {"run_id": "0", "step": 0}
        crew.require_same(
            (int(found["run_id"][:12], 16), found["step"]),
            f"{self.path} is not one folder that all workers see, or their flags differ",
        )
        self._load(vae, optimizer, sums)
        if self._writes:
            curves.claim(self.log_dir, self.run["run_id"])
        return self.run["step"]

    def _load(self, vae, optimizer, sums):
        state = _training_arrays(optimizer, sums)
        self.run, arrays = weights.read(self.path, training_like=state)
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
        self._saved_at = time.monotonic()
        if not self._writes:
            return
        self._require_locks()
        self.run = self.run | {"step": step, "epochs_done": epochs_done}
        path = weights.checkpoint(self.path, step)
        with files.disk_errors(self.path):
            files.make_folder(os.path.dirname(os.path.abspath(path)))
        training = _training_arrays(optimizer, sums)
        weights.write(path, vae, self.run, training=training, before_commit=self._require_locks)
        saved = weights.steps(self.path)
        later = [other for other in reversed(saved) if other > step]
        # Two stay: this one and the one before.
        self._remove_saves(later + [other for other in saved if other < step][:-1])

    def require_finite(self, step, losses):
        """Raises `NotFinite` where a loss of the steps after `step`, (steps,), is not finite."""
        if not np.isfinite(losses).all():
            raise self._not_finite(step + int(np.argmin(np.isfinite(losses))) + 1)

    def _not_finite(self, step):
        saved = weights.steps(self.path)
        kept = f"the save of step {saved[-1]} is" if saved else "no save is"
        return NotFinite(
            f"the loss is no longer finite at step {step}: {kept} in {self.path}; try a smaller "
            "learning rate, in another folder"
        )

    def finish(self, vae, posterior, fitted_prior, told):
        """Writes the finished weights, then removes the saves of the way there.

        Args:
            posterior: as `evaluation.posterior` returns it.
            fitted_prior, told: as `prior.fit` returns them.
        """
        largest = max(np.abs(column).max() for column in posterior.values())
        if not largest < weights.POSTERIOR_LIMIT:
            raise self._not_finite(self.run["step"])
        if not self._writes:
            return
        self.run = self.run | {"posterior": posterior, "prior": told}
        path, check = weights.finished(self.path), self._require_locks
        weights.write(path, vae, self.run, fitted_prior=fitted_prior, before_commit=check)
        self.tidy()

    def tidy(self):
        """Removes the saves on the way to finished weights: a kill may have left some."""
        if self._writes:
            self._remove_saves(weights.steps(self.path))
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(self.path, weights.CHECKPOINTS))

    def _clear(self):
        """Removes the files of an earlier run, and nothing else: first what makes it finished,
        then its saves, the newest first, then its curves."""
        with files.disk_errors(self.path), contextlib.suppress(FileNotFoundError):
            os.remove(weights.finished(self.path))
        self._remove_saves(weights.steps(self.path)[::-1])
        curves.clear(self.log_dir)

    def _remove_saves(self, steps):
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
            held = run[part].get(name)
            if held != value or type(held) is not type(value):
                what = f"{part} {name}" if part == "dataset" else name
                both = f"{cli.spelled(held):.80} where this one has {cli.spelled(value):.80}"
                raise UserError(f"{folder} holds another run, with {what} {both}")
