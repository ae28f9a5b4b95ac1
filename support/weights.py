"""The one file that is a save: read, checked, written; and Python's way to the weights.

    from support import weights
    vae, run = weights.load("better_weight")        # a model.VAE and what run.json tells of it

A `.keras` file is a zip. Beside Keras's own members (`model.weights.h5` holds the weights) it has
`run.json`, which lists all members, in saves to be resumed `training.npz`, and in finished weights
`prior.npz` (support/prior.py). Python's zipfile checks each member's CRC-32. Whatever else the file
claims is not believed: Keras's configuration, which could name any code, is never read here, and
arrays are read only from the paths and in the shapes that the architecture in `run.json` gives.
Reading needs NumPy and h5py alone.

`vae.keras` at the top of a weights folder means: finished. Without it, the saves of a run in
progress are `checkpoint/step-NNNNNNNNN.keras`, and the newest good one counts.
"""

import io
import itertools
import os
import re
import sys
import time
import zipfile

import numpy as np

from data import PIXELS
from support import UserError, cli, files, prior

FORMAT = 1
FINISHED = "vae.keras"
CHECKPOINTS = "checkpoint"
RUN, WEIGHTS, TRAINING, PRIOR = "run.json", "model.weights.h5", "training.npz", "prior.npz"
KERAS_MEMBERS = ("metadata.json", "config.json", WEIGHTS)
ACTIVATIONS = ("silu", "relu", "gelu", "elu", "tanh")
# Wider or deeper networks fit no workstation; a damaged run.json could ask for them.
WIDTH_LIMIT, DEPTH_LIMIT = 8192, 16
STEP_LIMIT = 10**9
POSTERIOR_LIMIT = 1e30
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


def write(path, vae, run, *, training=None, fitted_prior=None, before_commit=None):
    """Writes one save, whole or not at all.

    Args:
        path: ends in `.keras`; what stood there is replaced.
        vae: a `model.VAE`.
        run: dict for `run.json`, without `members`.
        training, fitted_prior: dicts of arrays for `training.npz` and `prior.npz`; None: without.
        before_commit: as `files.write_whole` takes it.

    Raises:
        UserError: it cannot be written.
    """
    import keras

    _check(run, path)
    for layer in vae.encoder.layers + vae.decoder.layers:
        # Keras 3.13 and 3.14 cannot read how 3.15 writes the default, and nothing needs it here.
        if hasattr(layer, "kernel_initializer"):
            layer.kernel_initializer = keras.initializers.Zeros()

    def fill_file(written):
        vae.as_keras_model().save(written)
        with zipfile.ZipFile(written, "a") as archive:
            for name, arrays in ((TRAINING, training), (PRIOR, fitted_prior)):
                if arrays:
                    content = io.BytesIO()
                    np.savez(content, **arrays)
                    archive.writestr(name, content.getvalue())
            archive.writestr(RUN, files.as_json(run | {"members": [*archive.namelist(), RUN]}))

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
    try:
        names = os.listdir(os.path.join(folder, CHECKPOINTS))
    except (FileNotFoundError, NotADirectoryError):
        names = ()
    return sorted(int(match[1]) for match in map(_STEP_FILE.fullmatch, names) if match)


def read_run(where):
    """Returns `run.json` of the newest good save alone; None where there is no save at all.

    Raises:
        UserError: there are saves, and none can be read.
    """
    return _newest(where, lambda archive, run, path: run)


def read(where, parts=("encoder", "decoder"), training_like=None):
    """Reads the newest good weights.

    Args:
        where: a weights folder, or a `.keras` file of one.
        parts: which of `encoder` and `decoder` to read.
        training_like: dict of name -> an array of the shape and type that `training.npz` must
            have there; None: they are not read.

    Returns:
        `run.json` as a dict, and a dict of part -> list of float32 arrays in Keras's order; also
        dicts of arrays: `training` with those of `training_like`, `prior` where one was fitted.

    Raises:
        UserError: there are none, or they are damaged.
    """

    def arrays(archive, run, path):
        found = _read_weights(archive, run["architecture"], parts)
        if training_like:
            content = io.BytesIO(archive.read(TRAINING))
            accepted = {
                name: lambda shape, dtype, like=like: (shape, dtype) == (like.shape, like.dtype)
                for name, like in training_like.items()
            }
            found["training"] = files.read_npz(content, f"{path}: {TRAINING}", accepted)
            if not all(np.isfinite(array).all() for array in found["training"].values()):
                raise ValueError("numbers that are not finite")
        if PRIOR in archive.namelist():
            content, what = io.BytesIO(archive.read(PRIOR)), f"{path}: {PRIOR}"
            found["prior"] = prior.read(content, what, run["architecture"]["latent_dim"])
        return run, found

    found = _newest(where, arrays, notify=True)
    if found is None:
        state = "holds no weights" if os.path.isdir(where) else "does not exist"
        raise UserError(f"{where} {state}: choose a folder that train.py wrote")
    return found


def _newest(where, read_file, notify=False):
    """Returns what `read_file` makes of the finished save, or else of the newest good one; None
    where there is none."""
    if os.path.isfile(where) and not where.endswith(".keras"):
        advice = "choose a folder that train.py wrote, or the .keras file in it"
        raise UserError(f"{where} is neither a weights folder nor a .keras file: {advice}")
    for _ in range(LOOKS):
        folder = os.path.isdir(where)
        if folder and not os.path.exists(finished(where)):
            paths = [checkpoint(where, step) for step in reversed(steps(where))]
            # An older version kept there what run.json tells now.
            if not paths and os.path.exists(os.path.join(where, "config.json")):
                raise UserError(f"{where} holds weights in the format of an older version")
        else:
            paths = [finished(where) if folder else where]
        vanished, damaged = False, None
        for path in paths:
            try:
                return _read_file(path, read_file)
            except FileNotFoundError:
                vanished = True
            except UserError as error:
                damaged = error
                if notify and path != paths[-1]:
                    print(f"Notice: {error}; taking the save before it.", file=sys.stderr)
        if damaged and not vanished:
            raise damaged
        if not folder or not paths:
            return None
        time.sleep(0.01)
    raise UserError(f"{where} changes faster than it can be read: try again later")


def _read_file(path, read_file):
    """Returns `read_file(archive, run, path)` of one file, opened once."""
    with (
        files.open_regular(path) as file,
        files.damage(path),
        zipfile.ZipFile(file) as archive,
    ):
        names = files.require_plain(archive)
        with archive.open(RUN) as member:
            run = files.read_json(member, f"{path}: {RUN}")
        optional = [name for name in (TRAINING, PRIOR) if name in names]
        expected = sorted([*KERAS_MEMBERS, *optional, RUN])
        if not expected == sorted(names) == sorted(run["members"]):
            raise ValueError(f"it holds {names}"[:200])
        if archive.testzip():
            raise ValueError(f"{archive.testzip()} is damaged")
        _check(run, path)
        return read_file(archive, run, path)


def _check(run, path):
    """Raises where what readers need of run.json is missing or out of range."""
    if run["format"] != FORMAT:
        raise UserError(f"{path} has format {run['format']!r:.20}, this version reads {FORMAT}")
    architecture, posterior = run["architecture"], run["posterior"]
    finished, told = posterior is not None, run.get("prior", {"why": ""})["why"]
    widths = [*architecture["hidden_units"], architecture["latent_dim"]]
    columns = [posterior[name] for name in ("mu_mean", "mu_std", "KLD")] if finished else []
    steps_done = run["step"], run["epochs_done"]
    texts = run["run_id"], run["dataset"]["sha256"], run["dataset"]["name"]
    checks = {
        "architecture": set(architecture) == {"hidden_units", "latent_dim", "activation"}
        and all(type(width) is int and 1 <= width <= WIDTH_LIMIT for width in widths)
        and 2 <= len(widths) <= DEPTH_LIMIT + 1
        and architecture["activation"] in ACTIVATIONS,
        "dataset or run_id": all(re.fullmatch("[a-z_0-9]{1,64}", text) for text in texts),
        "step": all(type(done) is int and 0 <= done <= STEP_LIMIT for done in steps_done),
        "training": run["training"]["binarize"] in ("none", "dynamic"),
        "prior": type(told) is str and len(told) < 200 and (told.isprintable() or not told),
        "posterior": all(
            len(column) == architecture["latent_dim"]
            and all(type(n) is float and abs(n) < POSTERIOR_LIMIT for n in column)
            for column in columns
        ),
    }
    for name, passed in checks.items():
        if not passed:
            raise ValueError(f"run.json: unexpected {name}")


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


def _read_weights(archive, architecture, parts):
    """Returns dict of part -> list of arrays, from the HDF5 member of an open save."""
    import h5py

    expected = shapes(architecture)
    numbers = sum(int(np.prod(shape)) for part in expected.values() for _, shape in part)
    size = archive.getinfo(WEIGHTS).file_size
    if not 4 * numbers <= size <= 4 * numbers + H5_OVERHEAD:
        raise ValueError(f"{WEIGHTS} does not fit the architecture in {RUN}")
    with h5py.File(io.BytesIO(archive.read(WEIGHTS)), "r") as file:
        return {part: [_read_dataset(file, *place) for place in expected[part]] for part in parts}


def _read_dataset(file, path, shape):
    """Returns one array of an HDF5 file that is exactly there and plain in every respect."""
    import h5py

    item = file
    for name in path.split("/"):
        if not isinstance(item.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} is no plain link")
        item = item[name]
    if not isinstance(item, h5py.Dataset) or item.shape != shape or item.dtype != "<f4":
        raise ValueError(f"{path} is {item}, expected float32 of shape {shape}")
    if item.chunks is not None or item.external is not None or item.is_virtual:
        raise ValueError(f"{path} does not stand in one piece in this file")
    array = item[...]
    if not np.isfinite(array).all():
        raise ValueError(f"{path} holds numbers that are not finite")
    return array
