"""What a weights file holds, where its arrays are, and how it is written.

A `.keras` file is an uncompressed zip archive. It holds Keras's own members, so that it can be
loaded without this repository, and members of ours, which Keras ignores:

    metadata.json, config.json, model.weights.h5     Keras's: the network and its weights
    run.json                                         records.RunRecord, and the list of members
    training.npz                                     in unfinished runs: optimizer, running sums
    prior.npz                                        in finished weights: the fitted prior

`vae.keras` at the top of a weights folder means that the run is finished. Until then, its saves are
`checkpoint/step-NNNNNNNNN.keras`.
"""

import io
import itertools
import json
import os
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from support import files, records
from support.datasets.types import PIXELS
from support.errors import UserError

if TYPE_CHECKING:
    import model
    from support.analysis import fitted_prior

RUN = "run.json"
WEIGHTS = "model.weights.h5"
TRAINING = "training.npz"
PRIOR = "prior.npz"
KERAS_MEMBERS = ("metadata.json", "config.json", WEIGHTS)
FINISHED = "vae.keras"
CHECKPOINTS = "checkpoint"
PARTS = ("encoder", "decoder")
_SAVE_NAME = re.compile(r"step-(\d{9})\.keras")


class Place(NamedTuple):
    """Where `model.weights.h5` keeps an array, and its shape."""

    path: str
    shape: tuple[int, ...]


def finished_path(folder: str) -> str:
    """Returns the path of the file that holds the weights of a finished run."""
    return os.path.join(folder, FINISHED)


def save_path(folder: str, step: int) -> str:
    """Returns the path of the save of a step."""
    return os.path.join(folder, CHECKPOINTS, f"step-{step:09d}.keras")


def saved_steps(folder: str) -> list[int]:
    """Returns the steps whose saves are in a weights folder, ascending."""
    try:
        entries = list(os.scandir(os.path.join(folder, CHECKPOINTS)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = [_SAVE_NAME.fullmatch(entry.name) for entry in entries if entry.is_file()]
    return sorted(int(match[1]) for match in matches if match)


def places(architecture: records.Architecture) -> dict[str, list[Place]]:
    """Returns where Keras keeps the arrays of each part of a network, in Keras's order of weights.

    The paths do not depend on the names of layers: Keras numbers models and layers of each kind.
    """
    sizes = {
        "encoder": architecture.encoder_sizes(PIXELS),
        "decoder": architecture.decoder_sizes(PIXELS),
    }
    found: dict[str, list[Place]] = {}
    for part, folder in (("encoder", "functional"), ("decoder", "functional_1")):
        found[part] = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes[part])):
            layer = "dense" if index == 0 else f"dense_{index}"
            variables = f"layers/{folder}/layers/{layer}/vars"
            found[part].append(Place(f"{variables}/0", (inputs, outputs)))
            found[part].append(Place(f"{variables}/1", (outputs,)))
    return found


def write(
    path: str,
    vae: "model.VAE",
    record: records.RunRecord,
    *,
    training: Mapping[str, NDArray] | None = None,
    prior: "fitted_prior.PriorArrays | None" = None,
    before_commit: Callable[[], None] | None = None,
) -> None:
    """Writes one weights file, atomically.

    Args:
        path: the path, which ends in `.keras`; an existing file is replaced.
        vae: the model.
        record: the record of its run.
        training: the arrays of `training.npz`; None: without it.
        prior: the fitted prior; None: without it.
        before_commit: see `files.write_whole`.

    Raises:
        UserError: the file cannot be written.
        ValueError: readers would reject the record.
    """
    _require_clock(path)
    content = record.to_json()
    # Checked in the form in which readers see it, with lists instead of tuples.
    records.RunRecord.from_json(json.loads(files.as_json(content)))
    _use_plain_initializers(vae)

    def fill(private: str) -> None:
        vae.as_keras_model().save(private)
        with zipfile.ZipFile(private, "a") as archive:
            if training:
                archive.writestr(TRAINING, _npz(training))
            if prior:
                archive.writestr(PRIOR, _npz(prior._asdict()))
            members = [*archive.namelist(), RUN]
            archive.writestr(RUN, files.as_json(content | {"members": members}))

    # h5py raises RuntimeError if the disk is full.
    with files.disk_errors(path, also=(RuntimeError,)):
        files.write_whole(path, fill, before_commit)


def _require_clock(path: str) -> None:
    """Raises a `UserError` if the clock shows a year that a zip archive cannot hold."""
    year = time.localtime().tm_year
    if not 1980 <= year < 2108:
        raise UserError(
            f"{path} cannot be written: the clock of this machine shows the year {year}, expected "
            "1980 to 2107: set the clock"
        )


def _npz(arrays: Mapping[str, NDArray]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _use_plain_initializers(vae: "model.VAE") -> None:
    """Replaces the kernels' initializer, which a saved model does not need.

    Keras 3.13 and 3.14 cannot read the default one as 3.15 writes it.
    """
    import keras

    for layer in vae.encoder.layers + vae.decoder.layers:
        if hasattr(layer, "kernel_initializer"):
            layer.kernel_initializer = keras.initializers.Zeros()
