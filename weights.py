"""What a weights folder holds: its only reader and writer, checkpoints and lock included.

    config.json      architecture, data set, the flags that shaped the result, SHA-256, posterior
    vae.weights.h5   the weights to evaluate
    checkpoint/      step-NNNNNNNNN/: what a run needs to continue (weights, optimizer, counters)

Copying the first two files publishes the weights. From Python:

    config, vae = weights.load_vae("better_weight")

Everything is written beside and renamed, and read only after its SHA-256 agreed: a flipped bit in
an HDF5 file would otherwise load without a word. Nothing here imports TensorFlow before it must.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys

import config_file
from config_file import CONFIG_FILE
from flags import UserError, new_folder, quiet_tensorflow, write_json, write_whole

WEIGHTS_FILE = "vae.weights.h5"
# New weights wait here until config.json names their hash, so that a kill between the two writes
# leaves a folder whose config.json still finds its weights.
PENDING_FILE = "vae.pending.weights.h5"
CHECKPOINTS = "checkpoint"
LOCK_FILE = ".lock"
SUMS_FILE = "SHA256SUMS"
STATE_FILE = "state.json"
_STEP_FOLDER = re.compile(r"step-(\d{9})")
_WRITING = ".writing-"


def _sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified_weights(folder, config):
    """Returns the path of the weights file whose SHA-256 is the one in `config`.

    Raises:
        UserError: there is none yet, it is damaged, or too small for the architecture.
    """
    if config["weights_sha256"] is None:
        raise UserError(f"{folder} holds no weights yet: its run has not finished an epoch")
    for name in (WEIGHTS_FILE, PENDING_FILE):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and _sha256_of(path) == config["weights_sha256"]:
            break
    else:
        path = os.path.join(folder, WEIGHTS_FILE)
        state = "is damaged: its SHA-256 is not" if os.path.isfile(path) else "is missing:"
        raise UserError(f"{path} {state} the one in {CONFIG_FILE}: get the folder anew")
    return path


def load_vae(folder, flag="--load_weight_dir"):
    """Loads a whole model.

    Returns:
        The config as a dict and the `model.VAE` with its weights.

    Raises:
        UserError: the folder or one of its files is not what it should be.
    """
    return _load(folder, flag, "VAE")


def load_decoder(folder, flag="--load_weight_dir"):
    """Loads the decoder alone; as `load_vae`, with a `model.DecoderOnly`."""
    return _load(folder, flag, "DecoderOnly")


def _load(folder, flag, container):
    config = config_file.read(folder, flag)
    path = verified_weights(folder, config)
    quiet_tensorflow()
    import numpy as np

    import model

    architecture = config["architecture"]
    misfit = UserError(f"{path} does not fit the architecture in {CONFIG_FILE}: get both anew")
    # Before the model is built: a config.json that asks for terabytes stops here.
    needed = 4 * model.weight_count(architecture["hidden_units"], architecture["latent_dim"])
    if not needed <= os.path.getsize(path) <= needed + 1_000_000:
        raise misfit
    vae = getattr(model, container)(**architecture)
    try:
        vae.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        raise misfit from error
    if not all(np.isfinite(weight.numpy()).all() for weight in vae.weights):
        raise UserError(f"{path} holds numbers that are not finite: get the folder anew")
    return config, vae


def export_decoder(decoder, folder):
    """Writes a SavedModel to the new folder `folder`: `serve`, z (n, latent_dim) -> images in
    [0, 1], float32 (n, 784), for any n."""
    import tensorflow as tf

    _export(decoder, lambda z: tf.sigmoid(decoder(z)), decoder.decoder.latent_dim, folder)


def export_encoder(vae, folder):
    """Writes a SavedModel to the new folder `folder`: `serve`, images in [0, 1], float32
    (n, 784), -> a dict of `mu` and `log_var`, (n, latent_dim), for any n."""
    import model

    def encode(images):
        mu, log_var = vae.encode(images)
        return {"mu": mu, "log_var": log_var}

    _export(vae.encoder, encode, model.PIXELS, folder)


def _export(tracked, function, width, folder):
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(tracked)
    archive.add_endpoint("serve", function, [tf.TensorSpec([None, width], tf.float32)])
    with new_folder(folder) as writing:
        archive.write_out(writing, verbose=False)


class TrainingFolder:
    """A weights folder that a run writes, locked against a second run.

    Args:
        folder: what `--save_weight_dir` names; made if need be.
        writes: False for a worker that is not the chief: it only reads, without the lock.

    Raises:
        UserError: it can't be written, or another process writes it.
    """

    def __init__(self, folder, writes=True):
        self.folder = folder
        self._checkpoints = os.path.join(folder, CHECKPOINTS)
        self._lock = None
        if not writes:
            return
        try:
            os.makedirs(folder, exist_ok=True)
            self._lock = _locked(os.path.join(folder, LOCK_FILE))
        except BlockingIOError:
            raise UserError(
                f"--save_weight_dir {folder} is in use by another run: wait for it, or name another"
            ) from None
        except OSError as error:
            raise UserError(
                f"--save_weight_dir {folder} can't be written ({error.strerror}): name a folder "
                "that can"
            ) from error

    def close(self):
        """Gives the lock back and leaves no trace of it."""
        if self._lock is None:
            return
        # The folder may have been deleted under the run: then the lock went with it.
        with contextlib.suppress(OSError):
            os.remove(os.path.join(self.folder, LOCK_FILE))
        os.close(self._lock)

    def config(self):
        """Returns the config of the run that the folder holds, or None for an empty folder."""
        if os.path.exists(os.path.join(self.folder, CONFIG_FILE)):
            return config_file.read(self.folder, "--save_weight_dir")
        if any(os.path.exists(os.path.join(self.folder, n)) for n in (WEIGHTS_FILE, CHECKPOINTS)):
            raise UserError(
                f"--save_weight_dir {self.folder} holds weights without {CONFIG_FILE}: name "
                "another folder, or --overwrite them"
            )
        return None

    def clear(self):
        """Removes the files that this project writes, and nothing else."""
        for name in (CONFIG_FILE, WEIGHTS_FILE, PENDING_FILE):
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.folder, name))
        for step in self._steps():
            shutil.rmtree(self._step_folder(step))
        self.sweep()
        with contextlib.suppress(OSError):
            os.rmdir(self._checkpoints)

    def sweep(self):
        """Removes what a killed process left half written."""
        for folder in (self.folder, self._checkpoints):
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                path = os.path.join(folder, name)
                if name.startswith(_WRITING):
                    shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

    def write_config(self, config):
        """Writes `config.json`, whole or not at all."""
        write_json(os.path.join(self.folder, CONFIG_FILE), config)

    def write_weights(self, vae, config):
        """Writes the weights and their config; at every moment the folder holds one valid pair.

        Returns:
            `config` with the SHA-256 of the new weights file.
        """
        pending = os.path.join(self.folder, PENDING_FILE)
        write_whole(pending, vae.save_weights)
        config = config | {"weights_sha256": _sha256_of(pending)}
        self.write_config(config)
        os.replace(pending, os.path.join(self.folder, WEIGHTS_FILE))
        return config

    def save_checkpoint(self, checkpoint, state, keep):
        """Writes `checkpoint` (a `tf.train.Checkpoint`) and `state` (a dict), then drops old ones.

        Args:
            state: counters and sums, for `state.json`; holds `step` and `run_id`.
            keep: how many checkpoints stay.
        """
        os.makedirs(self._checkpoints, exist_ok=True)
        writing = os.path.join(self._checkpoints, f"{_WRITING}{os.getpid()}")
        os.mkdir(writing)
        try:
            checkpoint.write(os.path.join(writing, "state"))
            with open(os.path.join(writing, STATE_FILE), "w", encoding="utf-8") as file:
                json.dump(state, file)
            sums = "".join(
                f"{_sha256_of(os.path.join(writing, name))}  {name}\n"
                for name in sorted(os.listdir(writing))
            )
            with open(os.path.join(writing, SUMS_FILE), "w", encoding="utf-8") as file:
                file.write(sums)
            final = self._step_folder(state["step"])
            if os.path.isdir(final):
                shutil.rmtree(final)
            os.rename(writing, final)
        except BaseException:
            shutil.rmtree(writing, ignore_errors=True)
            raise
        for step in self._steps()[:-keep]:
            shutil.rmtree(self._step_folder(step))

    def newest_checkpoint(self, run_id):
        """Finds the newest undamaged checkpoint of the run.

        Returns:
            The prefix for `tf.train.Checkpoint.read` and the state; (None, None) where there is
            no checkpoint at all.

        Raises:
            UserError: every checkpoint is damaged or another run's.
        """
        steps = self._steps()
        for step in reversed(steps):
            folder = self._step_folder(step)
            state = _undamaged_state(folder)
            if state and state.get("run_id") == run_id and state.get("step") == step:
                return os.path.join(folder, "state"), state
            print(f"Notice: {folder} is damaged: taking the one before it.", file=sys.stderr)
        if steps:
            raise UserError(
                f"{self._checkpoints}: every checkpoint is damaged: --overwrite starts the run anew"
            )
        return None, None

    def _steps(self):
        names = os.listdir(self._checkpoints) if os.path.isdir(self._checkpoints) else ()
        return sorted(int(m[1]) for m in map(_STEP_FOLDER.fullmatch, names) if m)

    def _step_folder(self, step):
        return os.path.join(self._checkpoints, f"step-{step:09d}")


def _undamaged_state(folder):
    """Returns the state of a checkpoint whose files all agree with their sums, else None."""
    try:
        with open(os.path.join(folder, SUMS_FILE), encoding="ascii") as file:
            sums = dict(reversed(line.split()) for line in file.read(10_000).splitlines())
        if set(sums) != set(os.listdir(folder)) - {SUMS_FILE} or STATE_FILE not in sums:
            return None
        if any(_sha256_of(os.path.join(folder, name)) != sums[name] for name in sums):
            return None
        with open(os.path.join(folder, STATE_FILE), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _locked(path):
    """Opens and locks the file `path`; the lock dies with the process."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed the file between the two calls above.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
