"""What config.json of a weights folder may hold, and how it is read: key by key, nothing unknown.

    import config_file
    config_file.read("better_weight")["architecture"]       # {'hidden_units': [512, 256], ...}

The file is untrusted input like any other: a type or a range that can't be is one clear line.
"""

import importlib.metadata
import json
import math
import os
import platform
import re

from flags import (
    ACTIVATIONS,
    BINARIZE,
    DEPTH_LIMIT,
    RECON_LOSSES,
    SCHEDULES,
    SEED_LIMIT,
    WIDTH_LIMIT,
    UserError,
)

FORMAT_VERSION = 3
CONFIG_FILE = "config.json"


def _whole(low, high=SEED_LIMIT):
    return lambda value: type(value) is int and low <= value <= high


def _real(low, high=math.inf):
    return lambda value: type(value) in (int, float) and low <= value <= high and value < math.inf


def _one_of(*choices):
    return lambda value: value in choices and type(value) is not bool


def _none_or(check):
    return lambda value: value is None or check(value)


def _hex(digits):
    return lambda value: type(value) is str and bool(re.fullmatch(f"[0-9a-f]{{{digits}}}", value))


def _list_of(check, low=1, high=WIDTH_LIMIT):
    return lambda value: (
        type(value) is list and low <= len(value) <= high and all(check(item) for item in value)
    )


_PER_UNIT = _list_of(_real(-1e30, 1e30))
# Every key and what its value must be; nothing else is accepted.
_SCHEMA = {
    "format_version": _one_of(FORMAT_VERSION),
    "run_id": _hex(32),
    "architecture": {
        "hidden_units": _list_of(_whole(1, WIDTH_LIMIT), high=DEPTH_LIMIT),
        "latent_dim": _whole(1, WIDTH_LIMIT),
        "activation": _one_of(*ACTIVATIONS),
    },
    "dataset": {"name": _one_of("mnist", "digits", "custom"), "sha256": _hex(64)},
    "training": {
        "epoch": _whole(1),
        "batch": _whole(1),
        "limit": _none_or(_whole(1)),
        "seed": _whole(0),
        "recon_loss": _one_of(*RECON_LOSSES),
        "beta": _real(0),
        "warp": _real(0, 1),
        "binarize": _one_of(*BINARIZE),
        "elbo_samples": _whole(1),
        "importance_samples": _whole(1),
        "learning_rate": _real(0),
        "schedule": _one_of(*SCHEDULES),
        "warmup_epochs": _real(0),
        "weight_decay": _real(0),
        "warm_start_sha256": _none_or(_hex(64)),
    },
    "versions": {
        package: lambda value: type(value) is str and len(value) < 100
        for package in ("python", "tensorflow", "keras", "numpy")
    },
    "epochs_done": _whole(0),
    "posterior": {"mu_mean": _PER_UNIT, "mu_std": _PER_UNIT, "KLD": _PER_UNIT},
    "variance": _none_or(_real(1e-30)),
    "weights_sha256": _none_or(_hex(64)),
}
# Known only once the run has finished.
_MAY_BE_NULL = ("posterior",)


def versions():
    """Returns the versions of Python and of the packages that shape a result, by name."""
    packages = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"python": platform.python_version(), **packages}


def read(folder, flag="--load_weight_dir"):
    """Reads and checks `config.json`, key by key.

    Raises:
        UserError: naming `flag` and the first thing that is wrong.
    """
    path = os.path.join(folder, CONFIG_FILE)
    if not os.path.isdir(folder):
        raise UserError(f"{flag} {folder} does not exist: name a folder that train.py wrote")
    try:
        if os.path.getsize(path) > 10_000_000:
            raise UserError(f"{path} is too large for a config.json: get the folder anew")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        raise UserError(f"{flag} {folder} is no weights folder: it lacks {CONFIG_FILE}") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no valid JSON ({error}): get the folder anew") from error
    _check(config, _SCHEMA, path, "")
    units = config["posterior"] and {len(column) for column in config["posterior"].values()}
    if units and units != {config["architecture"]["latent_dim"]}:
        raise UserError(f"{path}: posterior does not fit latent_dim: get the folder anew")
    return config


def _check(value, expected, path, where):
    if not isinstance(expected, dict):
        if not expected(value):
            raise UserError(
                f"{path}: {where} has a value that can't be ({str(value)[:60]}): get it anew"
            )
        return
    if value is None and where in _MAY_BE_NULL:
        return
    if not isinstance(value, dict) or set(value) != set(expected):
        found = set(value) if isinstance(value, dict) else set()
        keys = ", ".join(sorted(found ^ set(expected)))
        raise UserError(
            f"{path}: {where or 'the file'} lacks or has unknown keys ({keys[:200]}): "
            "was it written by this version of train.py?"
        )
    for key, check in expected.items():
        _check(value[key], check, path, f"{where}.{key}".lstrip("."))
