"""The newest undamaged weights of a folder, and how to load them from Python.

    from support.storage import weights
    vae, record = weights.load("better_weight")        # a model.VAE, and the contents of run.json

The folder of a finished run has `vae.keras` at its top. In that of an unfinished run, the newest
undamaged save is used.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from numpy.typing import NDArray

from support import records
from support.errors import UserError
from support.storage import validation, weights_file
from support.storage.validation import Weights
from support.text import visible

if TYPE_CHECKING:
    import keras

    import model

# How often a reader tries again after a save vanished before it was opened, and its pause.
ATTEMPTS = 20
PAUSE_SECONDS = 0.01

Read = TypeVar("Read")


def load(where: str) -> "tuple[model.VAE, records.RunRecord]":
    """Loads the newest undamaged weights; this imports TensorFlow.

    Args:
        where: a weights folder, or a `.keras` file in one.

    Returns:
        The model with its weights, and the record of its run.

    Raises:
        UserError: there are none, or they are damaged.
    """
    found = read(where)
    return build(found), found.record


def build(found: Weights) -> "model.VAE":
    """Returns the model with the weights that `read` returned; this imports TensorFlow."""
    import model

    vae = model.VAE(*found.record.architecture)
    fill(vae, found)
    return vae


def build_decoder(found: Weights) -> "keras.Model":
    """Returns the decoder alone, with the weights that `read` returned; imports TensorFlow."""
    import model

    decoder = model.build_decoder(*found.record.architecture)
    decoder.set_weights(found.decoder)
    return decoder


def fill(vae: "model.VAE", found: Weights) -> None:
    """Gives a model the weights that `read` returned."""
    vae.encoder.set_weights(found.encoder)
    vae.decoder.set_weights(found.decoder)


def read_record(where: str) -> records.RunRecord | None:
    """Returns the record of the newest undamaged weights; None if there are no weights at all.

    Args:
        where: a weights folder, or a `.keras` file in one.

    Raises:
        UserError: there are weights, but none of them can be read.
    """
    return _newest(where, validation.read_record)


def read(
    where: str,
    parts: Sequence[str] = weights_file.PARTS,
    training_like: Mapping[str, NDArray] | None = None,
) -> Weights:
    """Reads the newest undamaged weights, and prints a notice for each damaged save it skips.

    Args:
        where: a weights folder, or a `.keras` file in one.
        parts, training_like: see `validation.read`.

    Raises:
        UserError: there are none, or they are damaged.
    """
    found = _newest(
        where, lambda path: validation.read(path, parts, training_like), notify=_print_notice
    )
    if found is None:
        state = "holds no weights" if os.path.isdir(where) else "does not exist"
        raise UserError(f"{where} {state}: choose a folder that train.py wrote")
    return found


def _print_notice(error: UserError) -> None:
    # Without the advice at the end of the message: nothing has to be done.
    problem = str(error).rpartition(": ")[0] or str(error)
    print(f"Notice: {visible(problem)}; the previous save is used instead.", file=sys.stderr)


def _newest(
    where: str,
    read_file: Callable[[str], Read],
    notify: Callable[[UserError], None] = lambda _: None,
) -> Read | None:
    """Returns what `read_file` returns for the newest undamaged weights; None if there are none.

    A run may finish, or drop an older save, between the listing of its files and the opening of
    one: then its files are listed again.

    Args:
        where: a weights folder, or a `.keras` file in one.
        read_file: function of a path.
        notify: called with the error of each damaged save that is skipped.
    """
    if os.path.isfile(where) and not where.endswith(".keras"):
        advice = "choose a folder that train.py wrote, or the .keras file in it"
        raise UserError(f"{where} is neither a weights folder nor a .keras file: {advice}")
    for _ in range(ATTEMPTS):
        paths = _candidates(where)
        damage: UserError | None = None
        vanished = False
        for path in paths:
            try:
                return read_file(path)
            except FileNotFoundError:
                vanished = True
            except UserError as error:
                damage = error
                if path != paths[-1]:
                    notify(error)
        if damage and not vanished:
            raise damage
        if not paths or not os.path.isdir(where):
            return None
        time.sleep(PAUSE_SECONDS)
    raise UserError(f"{where} changes faster than it can be read: try again later")


def _candidates(where: str) -> list[str]:
    """Returns the paths that may hold the newest weights, the best one first."""
    if not os.path.isdir(where):
        return [where]
    finished = weights_file.finished_path(where)
    if os.path.exists(finished):
        return [finished]
    steps = weights_file.saved_steps(where)
    if not steps and os.path.exists(os.path.join(where, "config.json")):
        raise UserError(
            f"{where} holds weights in the format of an older version: use that version, or train "
            "again"
        )
    return [weights_file.save_path(where, step) for step in reversed(steps)]
