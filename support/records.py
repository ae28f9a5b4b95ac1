"""The contents of `run.json`, the record of a run in every weights file, as typed objects.

    record = RunRecord.from_json(json.load(file))      # ValueError names the wrong key
    record.architecture.latent_dim, record.finished

Every module reads `run.json` through `RunRecord.from_json`, which checks types and ranges. Keys
that files of earlier versions lack have defaults.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# The version of the format of weights files; increased when older readers would misread them.
FORMAT = 1
ACTIVATIONS = ("silu", "relu", "gelu", "elu", "tanh")
# Names of the optimizers in support/training/optimizer.py.
OPTIMIZERS = ("nadamw", "adamw")
# The initial weights: random, or random and then adapted to the data.
INITIAL_WEIGHTS = ("random", "adapted")
DATASETS = ("mnist", "fashion_mnist", "kmnist", "digits", "custom")
# Limits of a network that fits on a workstation; a damaged run.json could ask for more.
LARGEST_WIDTH = 8192
LARGEST_DEPTH = 16
LARGEST_STEP = 10**9
# The largest log_var that a network returns; model.py says why.
LARGEST_LOG_VAR = 10.0
# Readers reject moments of a posterior that reach this.
LARGEST_MOMENT = 1e30
LONGEST_REASON = 200

Setting = bool | int | float | str | None


class Architecture(NamedTuple):
    """The network, in the order of the arguments of `model.VAE`.

    Records of earlier versions lack `residual`, which means false.
    """

    hidden_units: tuple[int, ...]
    latent_dim: int
    activation: str
    residual: bool = False

    @classmethod
    def from_json(cls, content: Any) -> "Architecture":
        """Returns the architecture that a JSON object describes.

        Raises:
            ValueError: it describes no architecture, or one that is too large.
        """
        if not isinstance(content, dict) or set(content) | {"residual"} != set(cls._fields):
            raise ValueError(f"expected an object with {', '.join(cls._fields)}")
        hidden_units, latent_dim, activation, residual = cls(**content)
        if not isinstance(hidden_units, list) or not 1 <= len(hidden_units) <= LARGEST_DEPTH:
            raise ValueError(f"expected 1 to {LARGEST_DEPTH} hidden_units")
        if not all(_is_integer(width, 1, LARGEST_WIDTH) for width in [*hidden_units, latent_dim]):
            raise ValueError(f"expected widths of 1 to {LARGEST_WIDTH}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"expected activation to be one of {', '.join(ACTIVATIONS)}")
        if not isinstance(residual, bool):
            raise ValueError("expected residual to be true or false")
        return cls(tuple(hidden_units), latent_dim, activation, residual)

    def normalized(self) -> "Architecture":
        """Returns the same network, with `residual` false if none of its layers can be residual.

        A layer can be if the hidden layer before it has the same width.
        """
        if any(width == before for before, width in itertools.pairwise(self.hidden_units)):
            return self
        return self._replace(residual=False)

    def encoder_sizes(self, pixels: int) -> list[int]:
        """Returns the sizes of the encoder's layers, from its input to mu and log_var together."""
        return [pixels, *self.hidden_units, 2 * self.latent_dim]

    def decoder_sizes(self, pixels: int) -> list[int]:
        """Returns the sizes of the decoder's layers, from z to the logits of the pixels."""
        return [self.latent_dim, *reversed(self.hidden_units), pixels]

    def weight_count(self, pixels: int) -> int:
        """Returns how many weights, biases included, encoder and decoder have together.

        Args:
            pixels: the number of pixels of an image.
        """
        networks = self.encoder_sizes(pixels), self.decoder_sizes(pixels)
        layers = itertools.chain.from_iterable(map(itertools.pairwise, networks))
        return sum((inputs + 1) * outputs for inputs, outputs in layers)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON object."""
        return self._asdict() | {"hidden_units": list(self.hidden_units)}


def classes_as_typed(classes: Sequence[int], class_names: Sequence[str]) -> str:
    """Returns labels as `train.py --digits` takes them, by name if they have names.

    Args:
        classes: the labels; empty: all, for which the text is `all`.
        class_names: the names of the labels; empty for digits.
    """
    names = dict(enumerate(class_names))
    return " ".join(names.get(label, str(label)) for label in classes) or "all"


class DatasetRecord(NamedTuple):
    """Which data a run was trained on.

    Attributes:
        name: as in `data.Dataset`.
        sha256: the hash of its arrays, as in `data.Dataset`.
        class_names: the names of the labels; empty if they are the digits 0 to 9.
        classes: the labels that were trained and validated on, ascending; empty: all.
    """

    name: str
    sha256: str
    class_names: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()

    @property
    def classes_as_typed(self) -> str:
        """The classes that were trained on, as `train.py --digits` takes them, or `all`."""
        return classes_as_typed(self.classes, self.class_names)

    @classmethod
    def from_json(cls, content: Any) -> "DatasetRecord":
        """Returns the record; raises ValueError if the content is not one."""
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        name = content.get("name")
        if name not in DATASETS:
            raise ValueError(f"expected name to be one of {', '.join(DATASETS)}")
        sha256 = _hexadecimal(content.get("sha256"), "sha256")
        class_names = content.get("class_names", [])
        if not isinstance(class_names, list) or len(class_names) > 256:
            raise ValueError("expected class_names to be a list of at most 256")
        names = tuple(_text(one, "class_names") for one in class_names)
        classes = content.get("classes", [])
        if not isinstance(classes, list) or not all(_is_integer(one, 0, 255) for one in classes):
            raise ValueError("expected classes to be a list of whole numbers from 0 to 255")
        if classes != sorted(set(classes)):
            raise ValueError("expected classes in ascending order")
        return cls(name, sha256, names, tuple(classes))

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON object; without class_names and classes if there are none."""
        content: dict[str, Any] = {"name": self.name, "sha256": self.sha256}
        if self.class_names:
            content["class_names"] = list(self.class_names)
        if self.classes:
            content["classes"] = list(self.classes)
        return content


class Source(NamedTuple):
    """The weights that a run started from."""

    run_id: str
    step: int

    @classmethod
    def from_json(cls, content: Any) -> "Source | None":
        """Returns the record, None for null; raises ValueError if the content is neither."""
        if content is None:
            return None
        if not isinstance(content, dict):
            raise ValueError("expected an object or null")
        run_id = _hexadecimal(content.get("run_id"), "run_id")
        return cls(run_id, _count(content.get("step"), "step"))


class Posterior(NamedTuple):
    """Moments of q(z | x) over the training images, one number per latent dimension.

    Attributes:
        mu_mean, mu_std: mean and standard deviation of mu over the images.
        KLD: mean over the images of the KL divergence from N(0, 1), nats.
    """

    mu_mean: tuple[float, ...]
    mu_std: tuple[float, ...]
    KLD: tuple[float, ...]

    @property
    def finite(self) -> bool:
        """Whether every moment is a number that readers accept."""
        return all(abs(value) < LARGEST_MOMENT for column in self for value in column)

    @classmethod
    def from_json(cls, content: Any, latent_dim: int) -> "Posterior | None":
        """Returns the record, None for null; raises ValueError if the content is neither."""
        if content is None:
            return None
        if not isinstance(content, dict) or set(content) != set(cls._fields):
            raise ValueError(f"expected an object with {', '.join(cls._fields)}, or null")
        columns = [content[name] for name in cls._fields]
        for column in columns:
            if not isinstance(column, list) or len(column) != latent_dim:
                raise ValueError(f"expected lists of {latent_dim} numbers")
            if not all(type(value) is float for value in column):
                raise ValueError("expected numbers with a decimal point")
        found = cls(*map(tuple, columns))
        if not found.finite:
            raise ValueError(f"expected numbers below {LARGEST_MOMENT:g}")
        return found


class PriorRecord(NamedTuple):
    """The outcome of fitting the prior.

    Attributes:
        gain: by how many nats log p(z) is larger under it than under N(0, I), averaged over
            validation images; None if nothing was fitted.
        reason: why there is no fitted prior; empty if there is one.
    """

    gain: float | None
    reason: str = ""

    @classmethod
    def from_json(cls, content: Any) -> "PriorRecord | None":
        """Returns the record, None for null; raises ValueError if the content is neither."""
        if content is None:
            return None
        if not isinstance(content, dict):
            raise ValueError("expected an object or null")
        gain = content.get("gain")
        if gain is not None and not (type(gain) is float and math.isfinite(gain)):
            raise ValueError("expected gain to be a finite number or null")
        reason = content.get("why", "")
        return cls(gain, _text(reason, "why") if reason else "")

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON object."""
        return {"gain": self.gain, "why": self.reason}


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The record of a run at one of its saves.

    Attributes:
        run_id: a hexadecimal number, drawn at random when the run began.
        dataset: the data set that it is trained on.
        architecture: its network.
        training: every flag that affects the result, by name, as in `training.config.Config`.
        step, epochs_done: how many steps and epochs of it are done.
        versions: versions of Python and of the packages that affect a result, by name.
        source: the weights that it started from; None: random ones.
        posterior: in finished weights, the moments of q(z | x) over the training images.
        prior: in finished weights, the outcome of fitting the prior.
        kept_epoch: in finished weights, the epoch that they come from, counted from 1; None in
            files of earlier versions, which always kept the last epoch.
        log_dir: in saves of an unfinished run, the folder of its event files, seen from the
            weights folder; empty: not known.
    """

    run_id: str
    dataset: DatasetRecord
    architecture: Architecture
    training: Mapping[str, Setting]
    step: int
    epochs_done: int
    versions: Mapping[str, str]
    source: Source | None = None
    posterior: Posterior | None = None
    prior: PriorRecord | None = None
    kept_epoch: int | None = None
    log_dir: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run has ended: only its last file holds the posterior's moments."""
        return self.posterior is not None

    @property
    def trained_on_binary_images(self) -> bool:
        """Whether the model was trained on Bernoulli samples of the images."""
        return self.training["binarize"] == "dynamic"

    @property
    def warm_start(self) -> bool:
        """Whether the run started from the weights of another run."""
        return bool(self.training.get("warm_start", False))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunRecord":
        """Returns the record that the content of `run.json` describes.

        Raises:
            ValueError: a value is missing, of another type, or out of range.
        """
        with_key = _reader(content)
        architecture = with_key("architecture", Architecture.from_json)
        latent_dim = architecture.latent_dim
        return cls(
            run_id=with_key("run_id", lambda value: _hexadecimal(value, "run_id")),
            dataset=with_key("dataset", DatasetRecord.from_json),
            architecture=architecture,
            training=with_key("training", _training),
            step=with_key("step", lambda value: _count(value, "step")),
            epochs_done=with_key("epochs_done", lambda value: _count(value, "epochs_done")),
            versions=with_key("versions", _versions),
            source=with_key("source", Source.from_json),
            posterior=with_key("posterior", lambda value: Posterior.from_json(value, latent_dim)),
            prior=with_key("prior", PriorRecord.from_json),
            kept_epoch=with_key("kept_epoch", _optional_count),
            log_dir=with_key("log_dir", lambda value: _text(value or "", "log_dir")),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `run.json` except `members`, which the file's writer adds."""
        content = {
            "format": FORMAT,
            "run_id": self.run_id,
            "dataset": self.dataset.to_json(),
            "architecture": self.architecture.to_json(),
            "training": dict(self.training),
            "step": self.step,
            "epochs_done": self.epochs_done,
            "versions": dict(self.versions),
            "source": self.source._asdict() if self.source else None,
            "posterior": self.posterior._asdict() if self.posterior else None,
            "prior": self.prior.to_json() if self.prior else None,
            "kept_epoch": self.kept_epoch,
        }
        return content | {"log_dir": self.log_dir} if self.log_dir else content


def _reader(content: Mapping[str, Any]) -> Callable[[str, Callable[[Any], Any]], Any]:
    """Returns a function that parses the value of a key; its errors name the key."""

    def read(key: str, parse: Callable[[Any], Any]) -> Any:
        try:
            return parse(content.get(key))
        except ValueError as error:
            raise ValueError(f"run.json: unexpected {key}: {error}") from error

    return read


def _training(content: Any) -> dict[str, Setting]:
    """Returns the flags that affect a run; raises ValueError if the content is not that."""
    if not isinstance(content, dict) or len(content) > 100:
        raise ValueError("expected an object of settings")
    if content.get("binarize") not in ("none", "dynamic"):
        raise ValueError("expected binarize to be none or dynamic")
    for name, value in content.items():
        _text(name, "the name of a setting")
        if not isinstance(value, bool | int | float | str | None):
            raise ValueError(f"expected {name} to be a number, a string or null")
        if isinstance(value, str) and value:
            _text(value, name)
    return content


def _versions(content: Any) -> dict[str, str]:
    """Returns versions by package; raises ValueError if the content is not that."""
    if not isinstance(content, dict) or len(content) > 100:
        raise ValueError("expected an object of versions")
    return {_text(name, "a package"): _text(value, name) for name, value in content.items()}


def _is_integer(value: Any, least: int, most: int) -> bool:
    """Whether a JSON value is a whole number in a range; true and false are not."""
    return type(value) is int and least <= value <= most


def _count(value: Any, name: str) -> int:
    if not _is_integer(value, 0, LARGEST_STEP):
        raise ValueError(f"expected {name} to be a whole number from 0 to {LARGEST_STEP:,}")
    return int(value)


def _optional_count(value: Any) -> int | None:
    return None if value is None else _count(value, "kept_epoch")


def _hexadecimal(value: Any, name: str) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{1,64}", value):
        raise ValueError(f"expected {name} to be a hexadecimal number of 1 to 64 digits")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) >= LONGEST_REASON:
        raise ValueError(
            f"expected {name} to be printable text of fewer than {LONGEST_REASON} characters"
        )
    return value
