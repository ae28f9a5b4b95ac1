"""The folders of a run: which run they hold, whether it may continue there, and who may write.

    with RunFolder("weight_train", "log", identity) as folder:
        folder.record                        # of the run to continue; None: a new run

Running the same command twice is safe: in an empty folder a new run starts; an unfinished run with
the same configuration continues; a finished one is left alone; another configuration is refused.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from support import cli, files, records
from support.display import summaries
from support.errors import OtherRunError, UserError
from support.storage import weights, weights_file
from support.storage.locks import FolderLocks
from support.storage.saves import Saves
from support.storage.validation import Weights
from support.text import visible

WEIGHTS_LOCK = ".weights.lock"
LOG_LOCK = ".log.lock"
# The name of this setting in messages.
DATA_HASH = "sha256 of the data"


class Identity(NamedTuple):
    """What a run in a folder must match to be continued.

    Attributes:
        dataset: the data set that it is trained on.
        architecture: the settings of its network; if given weights determine the network, only
            those that the user typed.
        training: every flag that affects the result.
    """

    dataset: records.DatasetRecord
    architecture: Mapping[str, Any]
    training: Mapping[str, records.Setting]

    def settings(self) -> dict[str, Any]:
        """Returns all settings, by their names in messages."""
        dataset = {
            "dataset": self.dataset.name,
            DATA_HASH: self.dataset.sha256,
            "digits": self.dataset.classes_as_typed,
        }
        return dataset | dict(self.architecture) | dict(self.training)


# What earlier versions did not record, since they had nothing else.
EARLIER_SETTINGS: dict[str, records.Setting] = {
    "optimizer": "adamw",
    "initial_weights": "random",
}


def is_of_earlier_version(record: records.RunRecord) -> bool:
    """Whether a run began with version 1.0 or before, which had fewer settings."""
    return not EARLIER_SETTINGS.keys() & record.training.keys()


def identity_of(record: records.RunRecord) -> Identity:
    """Returns the identity of a run from its record."""
    network = record.architecture.normalized()
    return Identity(record.dataset, network._asdict(), EARLIER_SETTINGS | dict(record.training))


def _wanted_network(held: records.Architecture, typed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a network that is as held, except for what was typed."""
    return held._replace(**typed).normalized()._asdict()


def require_same(record: records.RunRecord, wanted: Identity, folder: str) -> None:
    """Raises an `OtherRunError` about the first setting in which a run is not the wanted one.

    Args:
        record: the record of the run in `folder`.
        wanted: what it must match.
        folder: the folder, for the message.
    """
    held = identity_of(record).settings()
    network = _wanted_network(record.architecture, wanted.architecture)
    for name, value in wanted._replace(architecture=network).settings().items():
        if name not in held:
            raise OtherRunError(
                f"{folder} holds a run of an older version, which had no setting {name}"
            )
        if not _differ(held[name], value):
            continue
        if name == DATA_HASH:
            raise OtherRunError(
                f"{folder} holds another run: it was trained on other {wanted.dataset.name} data "
                f"(sha256 {held[name]:.8}..., here {value:.8}...)"
            )
        raise OtherRunError(f"{folder} holds another run: {_both(name, held, value)}")


def _differ(held: Any, wanted: Any) -> bool:
    """Whether two settings differ; 1, 1.0 and true all differ from each other."""
    return held != wanted or type(held) is not type(wanted)


def _both(name: str, held: Mapping[str, Any], wanted: Any) -> str:
    """Returns the part of a message that gives a setting as held and as in this run."""
    theirs, ours = cli.as_typed(held[name]), cli.as_typed(wanted)
    return f"its {name} is {theirs:.80}, but this run has {ours:.80}"


class RunFolder:
    """The weights folder and the log folder of one run.

    Args:
        path: the weights folder.
        log_dir: the folder of TensorBoard's event files.
        identity: the identity of the run that is to start or continue there.
        overwrite: start again, whatever is there.
        writes: False for a worker that is not the chief: it only reads, and takes no locks.

    Attributes:
        record: the record of the run to continue; None: a new run.
        given: the weights that a new run starts from; None: random ones.
        saves: writes the saves.

    Raises:
        UserError: the folders hold another run, or a damaged one. No folder has been created then.
    """

    def __init__(
        self,
        path: str,
        log_dir: str,
        identity: Identity,
        overwrite: bool = False,
        writes: bool = True,
    ) -> None:
        self.path, self.log_dir = path, log_dir
        self.overwrite, self.writes = overwrite, writes
        self.record: records.RunRecord | None = None
        self.given: Weights | None = None
        self._identity = identity
        self._locks = FolderLocks()
        self.saves = Saves(path, self._locks)
        self._examine()

    @property
    def finished(self) -> bool:
        """Whether the run is finished, with its weights at the top of the folder."""
        return self.record is not None and self.record.finished

    @property
    def action(self) -> str:
        """What is about to happen in the folders, for a message."""
        if self.overwrite:
            return "Starting again"
        return "Continuing" if self.record else "Starting"

    def _examine(self) -> None:
        """Finds the run to continue, and refuses another one."""
        if os.path.isfile(self.path):
            raise UserError(
                f"{self.path} is a file, expected a folder: choose another --save_weight_dir"
            )
        self.record = None if self.overwrite else weights.read_record(self.path)
        if self.record is not None:
            self._require_in_place(self.record)
            require_same(self.record, self._identity, self.path)
        if self.writes and not self.finished:
            if self.record is not None:
                self._require_its_log_dir(self.record)
            run_id = self.record.run_id if self.record else None
            summaries.require_free(self.log_dir, run_id, self.overwrite)

    @property
    def log_dir_from_weights(self) -> str:
        """The path of the log folder, seen from the weights folder, as a save records it."""
        weights_path, log_path = os.path.realpath(self.path), os.path.realpath(self.log_dir)
        try:
            found = os.path.relpath(log_path, weights_path)
        except ValueError:
            # On Windows, if they are on different drives.
            found = log_path
        return found if found.isprintable() and len(found) < records.LONGEST_REASON else ""

    def _require_its_log_dir(self, record: records.RunRecord) -> None:
        """Raises a `UserError` if the event files so far are in another log folder."""
        if not record.log_dir or summaries.owner(self.log_dir) == record.run_id:
            return
        earlier = os.path.join(os.path.realpath(self.path), record.log_dir)
        if summaries.owner(earlier) == record.run_id:
            shown = cli.as_argument(cli.shown_path(earlier))
            raise UserError(
                f"the curves of the run in {self.path} are in {shown}, and cannot be continued in "
                f"{self.log_dir}: use --log_dir {shown}"
            )

    @property
    def architecture(self) -> records.Architecture | None:
        """The network of the run to continue, or else of the given weights; None: neither."""
        if self.record is not None:
            return self.record.architecture
        return self.given.record.architecture if self.given else None

    def _require_in_place(self, record: records.RunRecord) -> None:
        """Raises a `UserError` if a save has the name of finished weights, or the reverse."""
        finished = weights_file.finished_path(self.path)
        save = weights_file.save_path(self.path, record.step)
        if record.finished and not os.path.exists(finished):
            place = os.path.dirname(save)
            raise UserError(f"{place} holds finished weights: move the file to {finished}")
        if not record.finished and os.path.exists(finished):
            raise UserError(f"{finished} is a save of an unfinished run: move the file to {save}")

    def start_from(self, source: str) -> None:
        """Reads the weights that a new run starts from.

        A run that is there already does not need them: they may have been deleted, but must not be
        those of another run.

        Args:
            source: a folder or file with weights.

        Raises:
            UserError: the weights are in this folder, or do not fit the wanted network.
            OtherRunError: the run in this folder started from other weights.
        """
        inside, outside = os.path.realpath(source), os.path.realpath(self.path)
        if inside == outside or inside.startswith(os.path.join(outside, "")):
            raise UserError(
                f"{source} is in {self.path}, the folder of the new run: choose another "
                "--save_weight_dir"
            )
        if self.record is not None:
            self._require_source(self.record, source)
            return
        self.given = weights.read(source)
        network = self.given.record.architecture
        held = network.normalized()._asdict()
        for name, value in _wanted_network(network, self._identity.architecture).items():
            if _differ(held[name], value):
                flag = f"no-{name}" if value is False else name
                different = _both(name, held, value)
                raise UserError(
                    f"{source} does not fit: {different}: leave out --{flag}, or "
                    "choose other weights"
                )

    def _require_source(self, record: records.RunRecord, source: str) -> None:
        """Raises an `OtherRunError` if the run started from weights of another run than these."""
        try:
            found = weights.read_record(source)
        except UserError:
            # They are no longer needed, so they may be damaged or gone.
            return
        if found and record.source and found.run_id != record.source.run_id:
            raise OtherRunError(
                f"{self.path} holds a run that started from other weights: choose another "
                "--save_weight_dir and --log_dir, or use --overwrite"
            )

    def __enter__(self) -> "RunFolder":
        if not self.writes:
            return self
        try:
            self._lock(self.path, WEIGHTS_LOCK)
            # The curves of a finished run may have been moved; nothing is written there.
            if not self.finished:
                self._lock(self.log_dir, LOG_LOCK)
            # Another run may have started between the first check and the locks.
            self._examine()
        except BaseException:
            self._locks.release()
            raise
        return self

    def _lock(self, folder: str, name: str) -> None:
        self._locks.acquire(folder, name)
        files.sweep(folder)
        files.sweep(os.path.join(folder, weights_file.CHECKPOINTS))

    def __exit__(self, *_: object) -> None:
        self._locks.release()

    def report_finished(self) -> None:
        """Prints that the run is finished, and removes saves that a kill may have left behind."""
        with self:
            # The folder was examined again, under the lock.
            if self.record is None or not self.finished:
                raise UserError(
                    f"{self.path} was just changed by another process: run the command again"
                )
            if self.writes:
                self.saves.remove_all()
        epochs = self.record.epochs_done
        print(f"{visible(self.path)} holds this run, which finished after {epochs} epochs.")
        print("There is nothing to do.")

    @property
    def holds_earlier_run(self) -> bool:
        """Whether there are weights for `--overwrite` to replace."""
        finished = weights_file.finished_path(self.path)
        found = os.path.exists(finished) or bool(weights_file.saved_steps(self.path))
        return self.overwrite and found

    def read(self, training_like: Mapping[str, Any]) -> Weights:
        """Returns the newest undamaged save of this run.

        Args:
            training_like: see `validation.read`.

        Raises:
            UserError: it is damaged, or belongs to another run.
        """
        found = weights.read(self.path, training_like=training_like)
        require_same(found.record, self._identity, self.path)
        return found
