"""The one file that is a save: read, checked, written; and Python's way to the weights.

    from support import weights
    vae, run = weights.load("better_weight")        # a model.VAE and what run.json tells of it

A `.keras` file is a zip. Beside Keras's own members (`model.weights.h5` holds the weights) it has
`run.json`, which lists all members, and in saves to be resumed `training.npz`. Python's zipfile
checks each member's CRC-32. Whatever else the file claims is not believed: Keras's configuration,
which could name any code, is never read here, and arrays are read only from the paths and in the
shapes that the architecture in `run.json` gives. Reading needs NumPy and h5py alone.

`vae.keras` at the top of a weights folder means: finished. Without it, the saves of a run in
progress are `checkpoint/step-NNNNNNNNN.keras`, and the newest good one counts.
"""

import io
import itertools
import os
import re
import sys
import zipfile

import numpy as np

from data import PIXELS
from support import UserError, cli, files

FORMAT = 1
FINISHED = "vae.keras"
CHECKPOINTS = "checkpoint"
OLD_FORMAT = "config.json"
RUN, WEIGHTS, TRAINING, PRIOR = "run.json", "model.weights.h5", "training.npz", "prior.npz"
KERAS_MEMBERS = ("metadata.json", "config.json", WEIGHTS)
ACTIVATIONS = ("silu", "relu", "gelu", "elu", "tanh")
# Wider or deeper networks fit no workstation; a damaged run.json could ask for them.
WIDTH_LIMIT, DEPTH_LIMIT = 8192, 16
STEP_LIMIT = 10**9
# What an HDF5 file of this size may need beside its numbers.
H5_OVERHEAD = 1_000_000
# How often a reader looks again where a save vanished before it was opened.
LOOKS = 20
_STEP_FILE = re.compile(r"step-(\d{9})\.keras")


def load(where):
    """Loads the newest good weights.

    Args:
        where: a weights folder, or a `.keras` file of one.

    Returns:
        The `model.VAE` with its weights, and `run.json` as a dict.

    Raises:
        UserError: there are none, or they are damaged.
    """
    run, arrays = read(where)
    return build(run, arrays), run


def build(run, arrays):
    """Returns the `model.VAE` of what `read` returned, or its decoder where that alone was read."""
    cli.quiet_tensorflow()
    import model

    if "encoder" not in arrays:
        decoder = model.build_decoder(**run["architecture"])
        decoder.set_weights(arrays["decoder"])
        return decoder
    vae = model.VAE(**run["architecture"])
    fill(vae, arrays)
    return vae


def fill(vae, arrays):
    """Gives a `model.VAE` the arrays that `read` returned."""
    vae.encoder.set_weights(arrays["encoder"])
    vae.decoder.set_weights(arrays["decoder"])


def write(path, vae, run, training=None, before_commit=None):
    """Writes one save, whole or not at all.

    Args:
        path: ends in `.keras`; what stood there is replaced.
        vae: a `model.VAE`.
        run: dict for `run.json`, without `members`.
        training: dict of arrays for `training.npz`; None: there is none.
        before_commit: as `files.write_whole` takes it.

    Raises:
        UserError: it cannot be written.
    """
    import keras

    for layer in vae.encoder.layers + vae.decoder.layers:
        # Keras 3.13 and 3.14 cannot read how 3.15 writes the default, and nothing needs it here.
        if hasattr(layer, "kernel_initializer"):
            layer.kernel_initializer = keras.initializers.Zeros()

    def fill_file(written):
        vae.as_keras_model().save(written)
        with zipfile.ZipFile(written, "a") as archive:
            members = [*KERAS_MEMBERS, *([TRAINING] if training else []), RUN]
            if training:
                content = io.BytesIO()
                np.savez(content, **training)
                archive.writestr(TRAINING, content.getvalue())
            archive.writestr(RUN, files.as_json(run | {"members": members}))

    with files.disk_errors(path, also=(RuntimeError,)):
        files.write_whole(path, fill_file, before_commit)


def finished(folder):
    """Returns the path of the file that makes a folder a finished one."""
    return os.path.join(folder, FINISHED)


def checkpoint(folder, step):
    """Returns the path of the save of a step."""
    return os.path.join(folder, CHECKPOINTS, f"step-{step:09d}.keras")


def steps(folder):
    """Returns the steps that a folder has saves of, ascending."""
    place = os.path.join(folder, CHECKPOINTS)
    names = os.listdir(place) if os.path.isdir(place) else ()
    return sorted(int(match[1]) for match in map(_STEP_FILE.fullmatch, names) if match)


def read_run(where):
    """Returns `run.json` of the newest good save alone; None where there is no save at all.

    Raises:
        UserError: there are saves, and none can be read.
    """
    found = _newest(where, lambda archive, run, path: run)
    if found is None and os.path.exists(os.path.join(where, OLD_FORMAT)):
        raise UserError(
            f"{where} is a weights folder of an older version of this project, which this one "
            "does not read: choose another folder, or move this one away"
        )
    return found


def read(where, parts=("encoder", "decoder"), training_shapes=None):
    """Reads the newest good weights.

    Args:
        where: a weights folder, or a `.keras` file of one.
        parts: which of `encoder` and `decoder` to read.
        training_shapes: dict of name -> (shape, dtype) of the arrays in `training.npz`; None:
            they are not read.

    Returns:
        `run.json` as a dict, and a dict of part -> list of float32 arrays in Keras's order; with
        `training_shapes` also `training`, a dict of arrays.

    Raises:
        UserError: there are none, or they are damaged.
    """

    def arrays(archive, run, path):
        found = _read_weights(archive, run["architecture"], parts, path)
        if training_shapes:
            content = io.BytesIO(archive.read(TRAINING))
            accepted = {
                name: lambda shape, dtype, expected=expected: (shape, dtype) == expected
                for name, expected in training_shapes.items()
            }
            found["training"] = files.read_npz(content, f"{path}: {TRAINING}", accepted)
            if not all(np.isfinite(array).all() for array in found["training"].values()):
                raise ValueError("numbers that are not finite")
        return run, found

    found = _newest(where, arrays)
    if found is None:
        if os.path.isdir(where) and read_run(where) is None:
            raise UserError(f"{where} holds no weights: choose a folder that train.py wrote")
        raise UserError(f"{where} does not exist: choose a folder that train.py wrote")
    return found


def _newest(where, read_file):
    """Returns what `read_file` makes of the finished save, or else of the newest good one."""
    for _ in range(LOOKS):
        if not os.path.isdir(where):
            candidates = [where]
        elif os.path.lexists(finished(where)):
            candidates = [finished(where)]
        else:
            candidates = [checkpoint(where, step) for step in reversed(steps(where))]
        vanished, damaged = False, None
        for path in candidates:
            try:
                return _read_file(path, read_file)
            except FileNotFoundError:
                vanished = True
            except UserError as error:
                damaged = error
                if path != candidates[-1]:
                    print(f"Notice: {error}; taking the save before it.", file=sys.stderr)
        if damaged and not vanished:
            raise damaged
        if not os.path.isdir(where):
            return None
        if not candidates:
            return None
    raise UserError(f"{where} changes faster than it can be read: try again later")


def _read_file(path, read_file):
    """Returns `read_file(archive, run, path)` of one file, opened once."""
    with files.open_regular(path) as file, files.damage(path), zipfile.ZipFile(file) as archive:
        with archive.open(RUN) as member:
            run = files.read_json(member, f"{path}: {RUN}")
        members = run.get("members")
        optional = [name for name in (TRAINING, PRIOR) if name in (members or ())]
        expected = [*KERAS_MEMBERS, *optional, RUN]
        files.checked_members(archive, expected)
        if sorted(members) != sorted(expected):
            raise ValueError("run.json lists other members")
        _check(run, path)
        return read_file(archive, run, path)


def _check(run, path):
    """Raises where what every reader needs of run.json is missing or out of range."""
    if run.get("format") != FORMAT:
        raise UserError(f"{path} has format {run.get('format')!r:.20}, this version reads {FORMAT}")
    architecture, dataset = run["architecture"], run["dataset"]
    if set(architecture) != {"hidden_units", "latent_dim", "activation"}:
        raise ValueError("run.json: unexpected architecture")
    widths = [*architecture["hidden_units"], architecture["latent_dim"]]
    whole = all(type(width) is int and 1 <= width <= WIDTH_LIMIT for width in widths)
    if not whole or not 2 <= len(widths) <= DEPTH_LIMIT + 1:
        raise ValueError(f"run.json: widths {widths}"[:100])
    if architecture["activation"] not in ACTIVATIONS:
        raise ValueError("run.json: unknown activation")
    if not re.fullmatch("[a-z_0-9]{1,40}", dataset["name"]):
        raise ValueError("run.json: unexpected name of a data set")
    if not all(re.fullmatch("[0-9a-f]+", text) for text in (dataset["sha256"], run["run_id"])):
        raise ValueError("run.json: unexpected hash or run_id")
    if type(run["step"]) is not int or not 0 <= run["step"] <= STEP_LIMIT:
        raise ValueError("run.json: unexpected step")
    if run["posterior"] is not None:
        columns = [run["posterior"][name] for name in ("mu_mean", "mu_std", "KLD")]
        numbers = np.array(columns, np.float64)
        if numbers.shape != (3, architecture["latent_dim"]) or not (abs(numbers) < 1e6).all():
            raise ValueError("run.json: unexpected posterior")


def shapes(architecture):
    """Returns where Keras keeps each array of an architecture, in its order of weights.

    Returns:
        dict of part -> list of (path in model.weights.h5, shape).
    """
    hidden, latent_dim = architecture["hidden_units"], architecture["latent_dim"]
    widths = {
        "encoder": [PIXELS, *hidden, 2 * latent_dim],
        "decoder": [latent_dim, *reversed(hidden), PIXELS],
    }
    found = {}
    for part, folder in (("encoder", "functional"), ("decoder", "functional_1")):
        found[part] = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths[part])):
            layer = "dense" if index == 0 else f"dense_{index}"
            variables = f"layers/{folder}/layers/{layer}/vars"
            found[part] += [(f"{variables}/0", (inputs, outputs)), (f"{variables}/1", (outputs,))]
    return found


def _read_weights(archive, architecture, parts, path):
    """Returns dict of part -> list of arrays, from the HDF5 member of an open save."""
    import h5py

    expected = shapes(architecture)
    numbers = sum(int(np.prod(shape)) for part in expected.values() for _, shape in part)
    size = archive.getinfo(WEIGHTS).file_size
    if not 4 * numbers <= size <= 4 * numbers + H5_OVERHEAD:
        raise ValueError(f"{WEIGHTS} does not fit the architecture in {RUN}")
    with h5py.File(io.BytesIO(archive.read(WEIGHTS)), "r") as file:
        return {
            part: [_read_dataset(file, *expected_of) for expected_of in expected[part]]
            for part in parts
        }


def _read_dataset(file, path, shape):
    """Returns one array of an HDF5 file that is exactly there and plain in every respect."""
    import h5py

    item = file
    for name in path.split("/"):
        if not isinstance(item.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} is no plain link")
        item = item[name]
    plain = item.chunks is None and item.external is None and not item.is_virtual
    if item.shape != shape or item.dtype != np.dtype("<f4") or not plain:
        raise ValueError(f"{path} has shape {item.shape} and type {item.dtype}, expected {shape}")
    array = item[...]
    if not np.isfinite(array).all():
        raise ValueError(f"{path} holds numbers that are not finite")
    return array
