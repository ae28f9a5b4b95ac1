"""TensorBoard's event files of one run, in `log/train` and `log/val`, and which run owns them.

    claim("log", run_id)
    with Summaries("log") as writer:
        writer.start(step, record)
        writer.scalars("train", step, {"loss_total": 101.5})

Both parts hold `objective`, which is minimized, and the terms in `model.TERMS`. Only train holds
`learning_rate`; only val holds `active_units`, the pictures `reconstructions` and `prior_samples`,
the histograms of the latent space, and what the HParams tab shows: the settings of the run and, at
its end, the metrics of the weights that it keeps (`result/...`). `tag` puts each name in a group,
so that TensorBoard shows the -ELBO and its terms first.

The files hold TensorBoard's own records and summaries. Each begins with a `SessionLog.START` event,
which makes every loader drop what an interrupted run wrote beyond the step where this file begins.
"""

import glob
import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from support import files, records
from support.display import plots
from support.errors import OtherRunError, UserError

OWNER = "owner.json"
PARTS = ("train", "val")
EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d+)\.")
# TensorBoard sorts groups and the tags in them: the -ELBO comes first, then its two terms.
TAGS = {
    "loss_total": "-ELBO/loss_total",
    "loss_bce": "-ELBO/reconstruction/loss_bce",
    "loss_KLD": "-ELBO/regularizer/loss_KLD",
}

# What the values of each part are. TensorBoard's Scalars tab shows it at the (i) of a chart, its
# Text tab above the configuration.
PART_DESCRIPTIONS = {
    "train": "train: mean over the steps since the last point, on training images of which a part "
    "is distorted (`--elastic`). Distorted images have another loss, and fewer are distorted as "
    "the learning rate falls. So this curve may rise while the model improves.",
    "val": "val: mean over all validation images after an epoch. They are never distorted.",
}
DESCRIPTIONS = {
    "learning_rate": "The learning rate of the step; the part of the training images that is "
    "distorted is proportional to it.",
    "active_units": "Latent dimensions in which mu has a variance above 0.01 over the validation "
    "images: those that carry information.",
    "mu": "mu of q(z | x), of all validation images and latent dimensions.",
    "log_var": "log_var of q(z | x), of all validation images and latent dimensions.",
    "KLD_by_rank": "No histogram: the bar at r is the mean KL divergence, in nats, of the latent "
    "dimension whose KL divergence is the r-th largest, counted from 0.",
}
# As many as TensorBoard draws.
HISTOGRAM_BINS = 30
RESULT_DESCRIPTION = "On all validation images, with the weights that the run keeps."


def tag(name: str) -> str:
    """Returns the tag under which TensorBoard shows a curve or a picture."""
    return TAGS.get(name, f"others/{name}")


def require_free(log_dir: str, run_id: str | None, overwrite: bool) -> None:
    """Checks that a log folder does not belong to another run.

    Args:
        log_dir: the folder.
        run_id: the id of the run that may own the folder; None: no run may.
        overwrite: whether the event files of another run may be removed.

    Raises:
        OtherRunError: the folder belongs to another run.
        UserError: the folder belongs to an unknown run.
    """
    if not os.path.lexists(os.path.join(log_dir, OWNER)) and not event_files(log_dir):
        return
    owning_run = owner(log_dir)
    if owning_run is None:
        raise UserError(
            f"{log_dir} holds event files of an unknown run, which --overwrite does not remove: "
            "choose another --log_dir, or delete them yourself"
        )
    if owning_run != run_id and not overwrite:
        raise OtherRunError(f"{log_dir} holds the event files of another run")


def event_files(log_dir: str) -> list[str]:
    """Returns the paths of the event files in a log folder."""
    folders = [os.path.join(glob.escape(log_dir), part) for part in PARTS]
    return [path for folder in folders for path in glob.glob(f"{folder}/events.out.tfevents.*")]


def clear(log_dir: str) -> None:
    """Removes the event files of a run that is overwritten, and last the file that names it."""
    with files.disk_errors(log_dir):
        for path in [*event_files(log_dir), os.path.join(log_dir, OWNER)]:
            if os.path.lexists(path):
                os.remove(path)


def claim(log_dir: str, run_id: str) -> None:
    """Marks a free log folder as belonging to a run."""
    with files.disk_errors(log_dir):
        files.write_json(os.path.join(log_dir, OWNER), {"run_id": run_id})
        for part in PARTS:
            files.make_folder(os.path.join(os.path.abspath(log_dir), part))


def owner(log_dir: str) -> str | None:
    """Returns the run_id of the run that owns a log folder; None if that cannot be read."""
    try:
        with files.open_regular(os.path.join(log_dir, OWNER)) as file:
            return files.read_json(file, OWNER).get("run_id")
    except (FileNotFoundError, UserError):
        return None


def hyperparameters(record: records.RunRecord) -> dict[str, bool | float | str]:
    """Returns the settings of a run for the HParams tab; those that are off are `none`."""
    architecture = record.architecture._asdict() | {
        "hidden_units": " ".join(map(str, record.architecture.hidden_units))
    }
    settings = {"dataset": record.dataset.name} | architecture | dict(record.training)
    return {name: "none" if value is None else value for name, value in settings.items()}


class RunningMeans:
    """Means of the terms of training steps: since the last point of a curve, and over an epoch.

    Args:
        names: the names of the terms.
        every: steps between two points of a curve.
    """

    def __init__(self, names: Sequence[str], every: int) -> None:
        self._names, self._every = tuple(names), every
        self._steps = 0
        self._sum = np.zeros(len(names))
        self._epoch_sum = np.zeros(len(names))

    def state(self) -> dict[str, NDArray]:
        """Returns the arrays to save."""
        return {
            "logged": np.asarray(np.int64(self._steps)),
            "log_sum": self._sum.copy(),
            "epoch_sum": self._epoch_sum.copy(),
        }

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Continues from the arrays of a save."""
        self._steps = int(state["logged"])
        self._sum, self._epoch_sum = state["log_sum"].copy(), state["epoch_sum"].copy()

    def add(self, step: int, terms: Mapping[str, NDArray]) -> list[tuple[int, dict[str, float]]]:
        """Adds the means of several steps.

        Args:
            step: how many steps were done before.
            terms: float64 (steps,) by name.

        Returns:
            The points of the curves that are due: (step, mean of each term since the last point).
        """
        points = []
        values = np.stack([terms[name] for name in self._names], axis=1)
        for number, row in enumerate(values, step + 1):
            # One by one, in float64: the sums do not depend on how many steps a call computes.
            self._epoch_sum = self._epoch_sum + row
            self._sum = self._sum + row
            self._steps += 1
            if number % self._every == 0:
                points.append((number, self._named(self._sum / self._steps)))
                self._steps, self._sum = 0, np.zeros(len(self._names))
        return points

    def end_epoch(self, steps: int) -> dict[str, float]:
        """Returns the means over an epoch of `steps` steps, and begins the next epoch."""
        means = self._named(self._epoch_sum / steps)
        self._epoch_sum = np.zeros(len(self._names))
        return means

    def _named(self, means: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self._names, means.tolist(), strict=True))


class Summaries:
    """Writes scalars, pictures and text of a run; closes the files at the end of the block.

    Until `start`, events are kept in memory.

    Args:
        log_dir: a folder that `claim` has marked as this run's; None: nothing is written.
    """

    def __init__(self, log_dir: str | None) -> None:
        self._log_dir = log_dir
        self._files: dict[str, BinaryIO] = {}
        self._described: set[tuple[str, str]] = set()
        self._writers: dict[str, Any] = {}
        self._waiting: list[tuple[str, bytes]] = []

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(self, *_: object) -> None:
        if self._log_dir is not None:
            with files.disk_errors(self._log_dir):
                for file in self._files.values():
                    file.close()

    def start(self, step: int, record: records.RunRecord) -> None:
        """Opens the event files.

        Args:
            step: the step at which the run starts or resumes; later points belong to a lost part.
            record: the record of the run; TensorBoard's Text tab shows that of a new run.
        """
        if self._log_dir is None:
            return
        waiting, self._waiting = self._waiting, []
        with files.disk_errors(self._log_dir):
            for part in PARTS:
                self._begin_file(self._log_dir, part, step + 1)
        # In each file, since the one of the start may have been deleted.
        self._start_session(record)
        if step == 0:
            self._configuration(record)
        for part, event in waiting:
            self._write(self._log_dir, part, event)

    def _begin_file(self, log_dir: str, part: str, first_step: int) -> None:
        """Opens a new event file, whose start makes loaders drop points from `first_step` on.

        Loaders read files in the order of their names, which begin with the time. If the clock was
        set back, the time in the name is one second after that of the newest file.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = os.path.join(log_dir, part)
        matches = map(EVENT_FILE.match, os.listdir(folder))
        times = [int(match[1]) + 1 for match in matches if match]
        now = max([int(time.time()), 0, *times])
        name = f"events.out.tfevents.{now:010d}.{platform.node()}.{os.getpid()}"
        self._files[part] = open(os.path.join(folder, name), "xb")  # noqa: SIM115, see __exit__
        self._writers[part] = RecordWriter(self._files[part])
        self._add(part, 0, file_version="brain.Event:2")
        self._add(part, first_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, part: str, step: int, values: Mapping[str, float]) -> None:
        """Writes one point to each curve in `values`, by name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        # As simple values: tf.summary writes tensors, which EventAccumulator does not drop at a
        # restart.
        content = [
            Summary.Value(
                tag=tag(name),
                simple_value=value,
                metadata=self._description(
                    part, "scalars", tag(name), DESCRIPTIONS.get(name, PART_DESCRIPTIONS[part])
                ),
            )
            for name, value in values.items()
        ]
        self._add(part, step, summary=Summary(value=content))

    def _description(self, part: str, plugin: str, full_tag: str, text: str) -> object:
        """Returns the metadata that describes a chart; None after its first point in a file."""
        from tensorboard.compat.proto import summary_pb2

        if (part, full_tag) in self._described:
            return None
        self._described.add((part, full_tag))
        # Without the class, TensorBoard would drop the text of values in the old format.
        classes = {
            "scalars": summary_pb2.DATA_CLASS_SCALAR,
            "histograms": summary_pb2.DATA_CLASS_TENSOR,
        }
        found = summary_pb2.SummaryMetadata(
            display_name=full_tag, summary_description=text, data_class=classes[plugin]
        )
        found.plugin_data.plugin_name = plugin
        return found

    def result(self, step: int, means: Mapping[str, float]) -> None:
        """Writes the metrics of a run that ends, for the table of runs in the HParams tab.

        Args:
            step: the last step of the run.
            means: the metrics of the weights that it keeps on the validation images, by name.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        content = [
            Summary.Value(
                tag=f"result/{name}",
                simple_value=value,
                metadata=self._description("val", "scalars", f"result/{name}", RESULT_DESCRIPTION),
            )
            for name, value in means.items()
        ]
        # One step later, so that a run that is killed before its weights are written, and resumes
        # at its last step, replaces them.
        self._add("val", step + 1, summary=Summary(value=content))
        end = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time())
        self._hparams("_hparams_/session_end_info", HParamsPluginData(session_end_info=end))

    def _start_session(self, record: records.RunRecord) -> None:
        """Writes the settings of a run for the HParams tab, where `log/val` is its trial."""
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        start = SessionStartInfo(start_time_secs=time.time())
        for name, value in hyperparameters(record).items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, str):
                start.hparams[name].string_value = value
            else:
                start.hparams[name].number_value = value
        self._hparams("_hparams_/session_start_info", HParamsPluginData(session_start_info=start))

    def _hparams(self, full_tag: str, content: object) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata

        value = Summary.Value(tag=full_tag, metadata=metadata.create_summary_metadata(content))
        value.tensor.CopyFrom(metadata.NULL_TENSOR)
        self._add("val", 0, summary=Summary(value=[value]))

    def pictures(self, step: int, rows_by_name: Mapping[str, NDArray[np.uint8]]) -> None:
        """Writes pictures of digits among the validation summaries, dark ink on white.

        Args:
            step: the step of the run.
            rows_by_name: uint8 (rows, columns, 784) by name.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._log_dir is None:
            return
        for name, rows in rows_by_name.items():
            # As simple images, for the same reason as the scalars.
            columns, pixels = rows.shape[1:]
            image = _encoded(255 - plots.mosaic(rows.reshape(-1, pixels), columns))
            value = Summary.Value(tag=tag(name), image=image)
            self._add("val", step, summary=Summary(value=[value]))

    def histograms(self, step: int, values_by_name: Mapping[str, NDArray[np.floating]]) -> None:
        """Writes histograms of all values in arrays of any shape, by name, for validation."""
        for name, values in values_by_name.items():
            counts, edges = np.histogram(values, HISTOGRAM_BINS)
            self._histogram(name, step, edges, counts)

    def kld_by_rank(self, step: int, kld: NDArray[np.float64]) -> None:
        """Writes the KL divergences of the latent dimensions with the largest ones, in order.

        TensorBoard has no bar chart, but its histograms show one: the bar from r to r + 1 is as
        high as the KL divergence of the dimension of rank r.

        Args:
            step: the step of the run.
            kld: nats, (latent_dim,).
        """
        largest = np.zeros(HISTOGRAM_BINS)
        ranked = np.sort(kld)[::-1][:HISTOGRAM_BINS]
        largest[: len(ranked)] = ranked
        # TensorBoard drops empty bars at both ends, and then draws the others wider.
        bars = np.maximum(largest, 1e-6)
        self._histogram("KLD_by_rank", step, np.arange(HISTOGRAM_BINS + 1.0), bars)

    def _histogram(
        self, name: str, step: int, edges: NDArray[np.floating], heights: NDArray
    ) -> None:
        """Writes a histogram with bars of these heights between these edges."""
        from tensorboard.compat.proto.histogram_pb2 import HistogramProto
        from tensorboard.compat.proto.summary_pb2 import Summary

        # In the old format, for the same reason as the scalars. Its buckets have upper edges.
        content = HistogramProto(min=edges[0], max=edges[-1], num=float(heights.sum()))
        content.bucket_limit.extend(edges[1:].tolist())
        content.bucket.extend(heights.tolist())
        full_tag = tag(name)
        metadata = self._description("val", "histograms", full_tag, DESCRIPTIONS[name])
        value = Summary.Value(tag=full_tag, histo=content, metadata=metadata)
        self._add("val", step, summary=Summary(value=[value]))

    def _configuration(self, record: records.RunRecord) -> None:
        """Writes the record of a run as a table in TensorBoard's Text tab."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        content = record.to_json()
        lines = [f"{text}\n" for text in PART_DESCRIPTIONS.values()]
        lines += ["| setting | value |", "| --- | --- |"]
        for part in ("dataset", "architecture", "training", "versions"):
            lines += [f"| {name} | {json.dumps(value)} |" for name, value in content[part].items()]
        self._add("train", 0, summary=text_pb("configuration", "\n".join(lines)))

    def flush(self) -> None:
        """Flushes all events so far to disk, so that they survive a power cut."""
        if self._log_dir is None:
            return
        with files.disk_errors(self._log_dir):
            for part, file in self._files.items():
                file.flush()
                files.sync_descriptor(file.fileno())
                files.sync_folder(os.path.join(self._log_dir, part))

    def _add(self, part: str, step: int, **content: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        if self._log_dir is None:
            return
        event = Event(wall_time=time.time(), step=step, **content).SerializeToString()
        if part in self._files:
            self._write(self._log_dir, part, event)
        else:
            self._waiting.append((part, event))

    def _write(self, log_dir: str, part: str, event: bytes) -> None:
        with files.disk_errors(log_dir):
            self._writers[part].write(event)


def _encoded(image: NDArray[np.uint8]) -> object:
    """Returns a greyscale image, uint8 (height, width), as TensorBoard's record of a PNG."""
    import tensorflow as tf
    from tensorboard.compat.proto.summary_pb2 import Summary

    height, width = image.shape
    picture = Summary.Image(height=height, width=width, colorspace=1)
    picture.encoded_image_string = tf.io.encode_png(image[..., None]).numpy()
    return picture
