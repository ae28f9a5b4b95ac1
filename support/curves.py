"""TensorBoard's event files of one run, in `log/train` and `log/val`, and whose they are.

    curves.claim("log", run_id)
    log = curves.Curves("log", names=("loss_total", ...), every=50)
    with log.started(step, run):
        log.train(step, terms, rate)                     # a point where one is due
        log.scalars("val", step, points)

Names, in both parts: `objective`, what is minimized, and those in `model.TERMS`. In train alone:
`learning_rate`. In val alone: `active_units`, and the pictures `reconstructions` and `prior_draws`.
`tag` puts each in a group, so that TensorBoard opens on the -ELBO and its terms.

Written as TensorBoard's own records and summaries. Each file begins with a `SessionLog.START`
event, at which every loader drops what an interrupted run had written past the point where this
one resumes.
"""

import contextlib
import glob
import json
import os
import re
import time

import numpy as np

from support import UserError, files, pictures

OWNER = "owner.json"
PARTS = ("train", "val")
EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d+)\.")
# TensorBoard sorts groups and the tags in them: the -ELBO comes first, its terms beside it.
GROUPS = {"loss_total": "-ELBO/", "loss_bce": "-ELBO/of which ", "loss_KLD": "-ELBO/of which "}
# What TensorBoard's table shows of run.json.
SHOWN = ("dataset", "architecture", "training", "versions")


def tag(name):
    """Returns the tag under which TensorBoard shows a curve or picture."""
    return GROUPS.get(name, "others/") + name


def require_free(log_dir, run_id, overwrite):
    """Checks that `log_dir` is no other run's.

    Args:
        run_id: of the run that may be there already; None: none may.
        overwrite: whether another run's curves are to go.

    Raises:
        UserError: the folder belongs to another run, or to nobody known.
    """
    if not os.path.lexists(os.path.join(log_dir, OWNER)) and not event_files(log_dir):
        return
    owner = _owner(log_dir)
    if owner is None:
        raise UserError(f"{log_dir} holds event files of nobody knows which run")
    if owner != run_id and not overwrite:
        raise UserError(f"{log_dir} holds the curves of another run")


def event_files(log_dir):
    """Returns the paths of the event files in `log_dir`."""
    folders = [os.path.join(glob.escape(log_dir), part) for part in PARTS]
    return [path for folder in folders for path in glob.glob(f"{folder}/events.out.tfevents.*")]


def clear(log_dir):
    """Removes the curves of a run that is to be overwritten, its claim at last."""
    with files.disk_errors(log_dir), contextlib.suppress(FileNotFoundError):
        for path in [*event_files(log_dir), os.path.join(log_dir, OWNER)]:
            os.remove(path)


def claim(log_dir, run_id):
    """Makes the free folder `log_dir` that of one run."""
    with files.disk_errors(log_dir):
        files.write_json(os.path.join(log_dir, OWNER), {"run_id": run_id})
        for part in PARTS:
            files.make_folder(os.path.join(os.path.abspath(log_dir), part))


def _owner(log_dir):
    try:
        with files.open_regular(os.path.join(log_dir, OWNER)) as file:
            return files.read_json(file, OWNER).get("run_id")
    except (FileNotFoundError, UserError):
        return None


class Curves:
    """Writes scalars, pictures and text of a run, and keeps the running sums of its steps.

    Args:
        log_dir: a folder that `claim` has made this run's; None: nothing is written.
        names: of the terms of each step.
        every: steps between two points of a train curve.

    `sums` is what a save keeps: arrays `log_sum` over the `logged` steps since the last point, and
    `epoch_sum` over the epoch.
    """

    def __init__(self, log_dir, names, every):
        self._log_dir, self._names, self._every = log_dir, names, every
        self._files, self._writers = {}, {}
        zeros = np.zeros(len(names))
        self.sums = {"logged": np.int64(0), "log_sum": zeros, "epoch_sum": zeros.copy()}

    @contextlib.contextmanager
    def started(self, step, run):
        """Opens the event files, and closes them at the end.

        Args:
            step: of the run; points past it are of a part that was lost.
            run: `run.json`, which a new run's table shows.
        """
        try:
            with files.disk_errors(self._log_dir):
                for part in PARTS if self._log_dir else ():
                    self._begin(part, step + 1)
            if not step:
                self._table({name: run[name] for name in SHOWN})
            yield
        finally:
            with files.disk_errors(self._log_dir):
                for file in self._files.values():
                    file.close()

    def _begin(self, part, step):
        """Opens a new event file, which begins with a restart: points from `step` on are dropped.

        Loaders read files in the order of their names, which begin with the time: that of a clock
        that was set back gives way to the one after the newest file's.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = os.path.join(self._log_dir, part)
        times = [int(match[1]) for match in map(EVENT_FILE.match, os.listdir(folder)) if match]
        now = max(int(time.time()), *(before + 1 for before in times), 0)
        name = f"events.out.tfevents.{now:010d}.{os.uname().nodename}.{os.getpid()}"
        self._files[part] = open(os.path.join(folder, name), "xb")  # noqa: SIM115, closed by `started`
        self._writers[part] = RecordWriter(self._files[part])
        self._add(part, 0, file_version="brain.Event:2")
        self._add(part, step, session_log=SessionLog(status=SessionLog.START))

    def train(self, step, terms, rate):
        """Adds the means of a window of steps; writes the points that are due.

        Args:
            step: how many were done before.
            terms: dict of (steps,) by name.
            rate: the learning rate, a function of the number of steps done before.
        """
        values = np.stack([terms[name] for name in self._names], axis=1)
        for done, row in enumerate(values, step + 1):
            # One by one, in float64: the sums do not depend on where windows begin.
            self.sums["epoch_sum"] = self.sums["epoch_sum"] + row
            self.sums["log_sum"] = self.sums["log_sum"] + row
            self.sums["logged"] = self.sums["logged"] + 1
            if done % self._every == 0:
                means = self.sums["log_sum"] / self.sums["logged"]
                point = dict(zip(self._names, means, strict=True))
                point["learning_rate"] = float(rate(done - 1))
                self.scalars("train", done, point)
                self.sums |= {"logged": np.int64(0), "log_sum": np.zeros(len(self._names))}

    def end_epoch(self, steps):
        """Returns the means of an epoch of so many steps, and begins the next one."""
        means = self.sums["epoch_sum"] / steps
        self.sums["epoch_sum"] = np.zeros(len(self._names))
        return dict(zip(self._names, means, strict=True))

    def scalars(self, part, step, values):
        """Writes one point of each curve of a part, a dict by name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        # As plain values: of tensors, which tf.summary writes, EventAccumulator purges nothing at
        # a restart.
        content = [Summary.Value(tag=tag(n), simple_value=value) for n, value in values.items()]
        self._add(part, step, summary=Summary(value=content))

    def digits(self, step, drawn):
        """Writes pictures of validation digits: dark ink on white, row by row.

        Args:
            drawn: dict by name of digits, uint8 (rows, columns, 784).
        """
        import tensorflow as tf
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, rows in drawn.items():
            ink = 255 - pictures.mosaic(rows, rows.shape[1])
            height, width = ink.shape
            # Of the plain kind, for the same reason as the scalars.
            picture = Summary.Image(height=height, width=width, colorspace=1)
            picture.encoded_image_string = tf.io.encode_png(ink[..., None]).numpy()
            value = Summary.Value(tag=tag(name), image=picture)
            self._add("val", step, summary=Summary(value=[value]))

    def _table(self, content):
        """Writes a dict of dicts as a table in TensorBoard's text tab."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        lines = ["| setting | value |", "| --- | --- |"]
        for part in content.values():
            lines += [f"| {name} | {json.dumps(value)} |" for name, value in part.items()]
        self._add("train", 0, summary=text_pb("configuration", "\n".join(lines)))

    def flush(self):
        """Returns when every event so far would survive a power cut."""
        with files.disk_errors(self._log_dir):
            for part, file in self._files.items():
                file.flush()
                os.fsync(file.fileno())
                files.sync(os.path.join(self._log_dir, part))

    def _add(self, part, step, **content):
        from tensorboard.compat.proto.event_pb2 import Event

        if part in self._writers:
            event = Event(wall_time=time.time(), step=step, **content)
            with files.disk_errors(self._log_dir):
                self._writers[part].write(event.SerializeToString())
