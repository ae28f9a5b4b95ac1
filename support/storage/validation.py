"""Reads one weights file and trusts nothing in it.

The members must be exactly those that `run.json` lists, stored uncompressed, and pass the zip's
CRC-32. Arrays are read only from the paths and in the shapes that the architecture gives, as
float32, and must be finite. Keras's configuration, which could refer to any code, is never read.
Needs NumPy alone.
"""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from support import files, records
from support.analysis import fitted_prior
from support.errors import UserError
from support.storage import hdf5, weights_file

# How many bytes an HDF5 file may hold besides the numbers of its arrays.
H5_OVERHEAD = 1_000_000
# How many bytes JSON members may have, and small arrays.
OTHER_BYTES = 10_000_000
# The last record of a zip begins so, and 18 more bytes follow where it has no comment.
END_OF_ZIP = b"PK\x05\x06"


class Weights(NamedTuple):
    """The content of a weights file, as far as it was asked for.

    Attributes:
        record: the record of its run.
        encoder, decoder: float32 arrays in Keras's order of weights; None: not read.
        prior: the fitted prior; None: there is none.
        training: the arrays of `training.npz`; None: not read.
    """

    record: records.RunRecord
    encoder: list[NDArray[np.float32]] | None = None
    decoder: list[NDArray[np.float32]] | None = None
    prior: fitted_prior.PriorArrays | None = None
    training: dict[str, NDArray] | None = None


def read_record(path: str) -> records.RunRecord:
    """Returns only the record of a weights file.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is not a weights file, or is damaged.
    """
    return read(path, parts=()).record


def read(
    path: str,
    parts: Sequence[str] = weights_file.PARTS,
    training_like: Mapping[str, NDArray] | None = None,
) -> Weights:
    """Reads a weights file, which is opened only once.

    Args:
        path: the path of the file.
        parts: which of `encoder` and `decoder` to read; if none, the prior is not read either.
        training_like: name -> an array of the shape and type that the one in `training.npz` must
            have; None: it is not read.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is not a weights file, or is damaged.
    """
    with (
        files.open_regular(path) as file,
        files.damage(path),
        zipfile.ZipFile(file) as archive,
    ):
        record = _checked_record(archive, path)
        arrays = _read_parts(archive, record.architecture, parts) if parts else {}
        prior = training = None
        if parts and weights_file.PRIOR in archive.namelist():
            content, what = _member(archive, weights_file.PRIOR, path)
            prior = fitted_prior.read(content, what, record.architecture.latent_dim)
        if training_like is not None:
            content, what = _member(archive, weights_file.TRAINING, path)
            training = _read_training(content, what, training_like)
        return Weights(record, arrays.get("encoder"), arrays.get("decoder"), prior, training)


def _member(archive: zipfile.ZipFile, name: str, path: str) -> tuple[io.BytesIO, str]:
    """Returns the content of a member, and its name for messages."""
    return io.BytesIO(archive.read(name)), f"{path}: {name}"


def _checked_record(archive: zipfile.ZipFile, path: str) -> records.RunRecord:
    """Returns the record of an open weights file, after a check that all members are intact."""
    names = files.require_plain(archive)
    _require_nothing_behind(archive)
    if weights_file.RUN not in names and "config.json" in names:
        raise UserError(
            f"{path} was saved by Keras, without the {weights_file.RUN} that train.py adds: load "
            "it with keras.saving.load_model, or choose a file that train.py wrote"
        )
    with archive.open(weights_file.RUN) as member:
        content = files.read_json(member, f"{path}: {weights_file.RUN}")
    optional = [name for name in (weights_file.TRAINING, weights_file.PRIOR) if name in names]
    expected = sorted([*weights_file.KERAS_MEMBERS, *optional, weights_file.RUN])
    if not expected == sorted(names) == sorted(content["members"]):
        raise ValueError(f"it holds {names!s:.150}, expected {expected}")
    _require_format(content, path)
    record = records.RunRecord.from_json(content)
    # Before anything is read whole.
    _require_sizes(archive, record.architecture)
    damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{damaged} is damaged")
    return record


def _require_sizes(archive: zipfile.ZipFile, architecture: records.Architecture) -> None:
    """Raises a `ValueError` if a member is larger than the architecture can need."""
    weights = _bytes_of_weights(architecture)
    largest = {
        weights_file.WEIGHTS: weights + H5_OVERHEAD,
        # The optimizer has two numbers per weight, and `--keep best` one more.
        weights_file.TRAINING: 3 * weights + OTHER_BYTES,
        weights_file.PRIOR: fitted_prior.LARGEST_BYTES + OTHER_BYTES,
    }
    for member in archive.infolist():
        limit = largest.get(member.filename, OTHER_BYTES)
        if member.file_size > limit:
            raise ValueError(
                f"{member.filename} has {member.file_size:,} bytes and does not fit the "
                f"architecture in {weights_file.RUN}: expected at most {limit:,}"
            )


def _bytes_of_weights(architecture: records.Architecture) -> int:
    """Returns how many bytes all weights of a network take as float32."""
    places = weights_file.places(architecture).values()
    return 4 * sum(math.prod(place.shape) for part in places for place in part)


def _require_nothing_behind(archive: zipfile.ZipFile) -> None:
    """Raises where bytes follow the end of a zip, which Python's reader would overlook."""
    file = archive.fp
    assert file is not None  # while the archive is open
    file.seek(-len(END_OF_ZIP) - 18, io.SEEK_END)
    if file.read(len(END_OF_ZIP)) != END_OF_ZIP:
        raise ValueError("there are bytes behind its end")


def _require_format(content: Mapping[str, Any], path: str) -> None:
    if content["format"] != records.FORMAT:
        found = f"{content['format']!r:.20}"
        raise UserError(
            f"{path} has format {found}, and this version reads format {records.FORMAT}: use the "
            "version of this project that wrote it"
        )


def _read_training(
    content: io.BytesIO, what: str, like: Mapping[str, NDArray]
) -> dict[str, NDArray]:
    """Returns the arrays of `training.npz`; names, shapes and types must be those of `like`."""

    def accepts(name: str) -> files.Accepts:
        expected = like[name]
        return lambda shape, dtype: (shape, dtype) == (expected.shape, expected.dtype)

    arrays = files.read_npz(content, what, {name: accepts(name) for name in like})
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    return arrays


def _read_parts(
    archive: zipfile.ZipFile, architecture: records.Architecture, parts: Sequence[str]
) -> dict[str, list[NDArray[np.float32]]]:
    """Returns the weights of some parts from the HDF5 member of an open weights file."""
    places = weights_file.places(architecture)
    size = archive.getinfo(weights_file.WEIGHTS).file_size
    if size < _bytes_of_weights(architecture):
        raise ValueError(
            f"{weights_file.WEIGHTS} does not fit the architecture in {weights_file.RUN}"
        )
    file = hdf5.Hdf5File(archive.read(weights_file.WEIGHTS))
    return {part: [_read_finite(file, place) for place in places[part]] for part in parts}


def _read_finite(file: hdf5.Hdf5File, place: weights_file.Place) -> NDArray[np.float32]:
    """Returns one array; raises ValueError where it holds NaN or infinity."""
    array = file.read(place.path, place.shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{place.path} holds numbers that are not finite")
    return array
