"""TensorBoard event files of one run, in `log/train` and `log/val`, and whose they are.

TensorBoard's own writer and summaries. Each writer begins with a `SessionLog.START` event, at which
every loader drops what an interrupted run had written past the point where this one resumes.
"""

import contextlib
import glob
import json
import math
import os
import time

import data
import flags
from flags import UserError, write_json

OWNER_FILE = "run.json"
PARTS = ("train", "val")
# As many as one sprite of 100x100 digits, which every browser takes.
PROJECTED = 10_000


def require_free(log_dir, run_id, overwrite):
    """Checks that `log_dir` can be written and is no other run's, and changes nothing in it.

    Args:
        run_id: of the run; the same one may come back, another is refused.
        overwrite: another run's event files are to be removed.

    Returns:
        The paths of another run's event files.

    Raises:
        UserError: the folder can't be written, or belongs to another run.
    """
    flags.writable_folder(log_dir, "--log_dir")
    owner = os.path.join(log_dir, OWNER_FILE)
    folders = [os.path.join(glob.escape(log_dir), part) for part in PARTS]
    events = [path for folder in folders for path in glob.glob(f"{folder}/events.out.tfevents.*")]
    if not (os.path.exists(owner) or events) or _owner(owner) == run_id:
        return []
    if not overwrite:
        raise UserError(
            f"--log_dir {log_dir} holds the curves of another run: name another folder, or "
            "--overwrite them"
        )
    return events


def claim(log_dir, run_id, overwrite):
    """Makes `log_dir` the log folder of one run; arguments and errors as in `require_free`."""
    try:
        for path in require_free(log_dir, run_id, overwrite):
            os.remove(path)
        write_json(os.path.join(log_dir, OWNER_FILE), {"run_id": run_id})
        for part in PARTS:
            os.makedirs(os.path.join(log_dir, part), exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--log_dir {log_dir} can't be written ({error.strerror}): name a folder that can"
        ) from error


def _owner(path):
    with contextlib.suppress(OSError, ValueError):
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return content.get("run_id") if isinstance(content, dict) else None
    return None


class Curves:
    """Writes scalars, pictures and text to `log_dir/train` and `log_dir/val`.

    Args:
        log_dir: a folder that `claim` has made this run's.
        step: of the last point that is kept from before; 0 for a new run.
    """

    def __init__(self, log_dir, step):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event = Event
        self._writers = {part: EventFileWriter(os.path.join(log_dir, part)) for part in PARTS}
        start = SessionLog(status=SessionLog.START)
        for part in PARTS:
            self._add(part, step + 1, session_log=start)

    def scalars(self, part, step, values):
        """Writes one point of each curve in `values` (a dict by tag) to `train` or `val`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        # As plain values: of tensors, which tf.summary writes, EventAccumulator purges nothing at
        # a restart.
        content = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(part, step, summary=Summary(value=content))

    def digits(self, part, step, tag, images, columns):
        """Writes digits, uint8 (n, 784), as one picture: dark ink on white, row by row."""
        import tensorflow as tf
        from tensorboard.compat.proto.summary_pb2 import Summary

        ink = 255 - data.mosaic(images, columns)
        # Of the plain kind, for the same reason as the scalars.
        picture = Summary.Image(
            height=ink.shape[0],
            width=ink.shape[1],
            colorspace=1,
            encoded_image_string=tf.io.encode_png(ink[..., None]).numpy(),
        )
        self._add(part, step, summary=Summary(value=[Summary.Value(tag=tag, image=picture)]))

    def text(self, tag, content):
        """Writes Markdown, shown in TensorBoard's text tab."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._add("train", 0, summary=text_pb(tag, content))

    def flush(self):
        """Returns when everything is on disk.

        Raises:
            FileNotFoundError: the folder is gone: an open file would take writes all the same.
        """
        for writer in self._writers.values():
            writer.flush()
            os.stat(writer.get_logdir())

    def close(self):
        """Flushes and closes the files."""
        for writer in self._writers.values():
            writer.close()

    def _add(self, part, step, **content):
        self._writers[part].add_event(self._event(wall_time=time.time(), step=step, **content))


class NoCurves:
    """Takes what `Curves` takes and writes nothing: for the workers of a run that are not chief."""

    def _nothing(self, *_):
        pass

    scalars = digits = text = flush = close = _nothing


def write_projector(folder, mu, images, labels):
    """Writes a new log folder for TensorBoard's embedding projector: points, digits, labels.

    Args:
        folder: must not exist.
        mu: (n, latent_dim).
        images: uint8 (n, 784); at most the first 10,000 points are shown.
        labels: (n,).
    """
    import numpy as np
    import tensorflow as tf
    from tensorboard.plugins import projector

    mu, images, labels = (array[:PROJECTED] for array in (mu, images, labels))
    with flags.new_folder(folder) as writing:
        np.savetxt(os.path.join(writing, "mu.tsv"), mu, fmt="%.3f", delimiter="\t")
        np.savetxt(os.path.join(writing, "labels.tsv"), labels, fmt="%d")
        side = math.ceil(len(images) ** 0.5)
        sprite = 255 - data.mosaic(images, side, gap=0)
        png = tf.io.encode_png(
            np.pad(sprite, ((0, side * data.SIDE - len(sprite)), (0, 0)))[..., None]
        )
        tf.io.write_file(os.path.join(writing, "digits.png"), png)
        config = projector.ProjectorConfig()
        embedding = config.embeddings.add(
            tensor_name="mu", tensor_path="mu.tsv", metadata_path="labels.tsv"
        )
        embedding.sprite.image_path = "digits.png"
        embedding.sprite.single_image_dim.extend([data.SIDE, data.SIDE])
        projector.visualize_embeddings(writing, config)
