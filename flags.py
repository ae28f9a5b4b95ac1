"""The flags that scripts share, their checks, the one error line and the exit codes.

Imported by every script before anything heavy, so that `--help` and a wrong flag
answer at once: nothing here imports NumPy or TensorFlow at the top.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import sys
import tempfile

EXIT_INPUT = 2
EXIT_NOT_FINITE = 3
SEED_LIMIT = 2**31 - 1
# Wider layers than this do not fit a workstation; a damaged config.json could ask for them.
WIDTH_LIMIT = 8192
DEPTH_LIMIT = 16
# XLA leaves half of an AVX-512 unit idle unless asked: 3 % of a training step.
WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
ACTIVATIONS = ("silu", "relu", "gelu", "elu", "tanh")
DATASETS = ("auto", "mnist", "digits")
RECON_LOSSES = ("bce", "l2", "gaussian")
BINARIZE = ("none", "dynamic")
STRATEGIES = ("auto", "one", "mirrored", "multi_worker")
SCHEDULES = ("cosine", "constant")
# The default of a flag whose absence means something; its help says what.
ABSENT = argparse.SUPPRESS


class UserError(Exception):
    """Something that the user can mend: becomes the one line on stderr and the exit code.

    Args:
        message: what is wrong with which file or flag, and what to do.
        code: the exit code of the script.
    """

    def __init__(self, message, code=EXIT_INPUT):
        super().__init__(message)
        self.code = code


def integer(minimum, maximum=SEED_LIMIT):
    """A type for argparse: a whole number within [minimum, maximum]."""

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {minimum} to {maximum}, got {text!r}"
            )
        return value

    return parse


def number(minimum, *, above=False, maximum=math.inf):
    """A type for argparse: a finite number from `minimum` (`above`: above it) to `maximum`."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = minimum <= value <= maximum and not (above and value == minimum)
        if not inside or not math.isfinite(value):
            relation = "above" if above else "of at least"
            most = f", at most {maximum:g}" if maximum < math.inf else ""
            raise argparse.ArgumentTypeError(
                f"expected a finite number {relation} {minimum:g}{most}, got {text!r}"
            )
        return value

    return parse


def script_parser(script, docstring):
    """Returns the parser of one script: its name, its docstring, defaults shown in `--help`."""
    parser = argparse.ArgumentParser(
        prog=script,
        description=docstring,
        formatter_class=lambda prog: _Formatter(prog, max_help_position=32),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--seed", type=integer(0), default=0, help="same seed, same machine: same bits"
    )
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the docstring and shows every default."""


def add_data_flags(parser):
    """Adds `--dataset` and `--data_dir`: which images, and where they are."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        choices=DATASETS,
        default="auto",
        help="auto in train.py: MNIST where it can be had, otherwise the small embedded digits; "
        "auto in eval.py: the data that the weights were trained on",
    )
    group.add_argument(
        "--data_dir",
        default=os.environ.get("MNIST_DIR", ""),
        help="a folder with mnist.npz or the four IDX files, or an .npz file; empty: the "
        "environment variable MNIST_DIR, then Keras's cached download",
    )
    return group


def add_picture_flags(parser, windows=True):
    """Adds `--output_dir` and (`windows`) `--show`: where pictures and figures go."""
    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", default="./result", help="where pictures and files go")
    if windows:
        group.add_argument("--show", action="store_true", help="open the pictures in windows too")
    return group


def add_export_flag(parser, what):
    """Adds `--export`: a folder for a SavedModel of `what`."""
    parser.add_argument(
        "--export",
        default="",
        metavar="DIR",
        help=f"write a SavedModel of the {what}, which needs TensorFlow and nothing of this "
        "repository; empty: none",
    )


def require_new_folder(path, flag):
    """Raises `UserError` where something already stands at `path`; '' is no folder at all."""
    if path and os.path.lexists(path):
        raise UserError(f"{flag} {path} exists already: name a new folder")
    if path:
        writable_folder(os.path.dirname(os.path.abspath(path)), f"the parent folder of {flag}")


def writable_folder(path, flag):
    """Creates the folder `path` if need be and proves that it can be written.

    Raises:
        UserError: naming `flag`, where it is no folder or can't be written.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"{flag} {path} can't be written ({error.strerror}): name a folder that can"
        ) from error


def write_whole(path, write):
    """Calls `write(temporary)` beside `path` and renames the result: whole or not at all.

    Args:
        path: the file to make or replace.
        write: a function that writes the file whose name it is given. The name keeps the ending
            of `path`, which is how Keras and matplotlib tell a format.
    """
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".writing-{os.getpid()}-{name}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.remove(temporary)
        raise


@contextlib.contextmanager
def new_folder(path):
    """Gives a folder to fill beside `path`, and renames it when the block ends well."""
    parent, name = os.path.split(os.path.abspath(path))
    writing = os.path.join(parent, f".writing-{os.getpid()}-{name}")
    os.mkdir(writing)
    try:
        yield writing
        os.rename(writing, path)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise


def write_json(path, content):
    """Writes `content` as JSON to `path`, whole or not at all; NaN is refused."""

    def write(temporary):
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")

    write_whole(path, write)


@contextlib.contextmanager
def disk_errors(what):
    """Turns a failed write inside the block, Python's or TensorFlow's, into a `UserError`.

    Args:
        what: the flag and folder that is written.
    """
    import tensorflow as tf

    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        # By number where there is one: h5py puts a paragraph where others have a word.
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error)
        raise UserError(
            f"{what} can't be written ({reason[:200]}): mend that and give the same command; "
            "what was saved before stays"
        ) from error


def spelled(value):
    """Returns a flag's value as one types it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def quiet_tensorflow(first=None):
    """Imports TensorFlow with its start-up lines kept off the screen; an error still shows.

    Args:
        first: a function to call first of all, while lines are still kept off.

    Returns:
        What `first` returned.

    The first lines come from C++ before any log level is read, so stderr itself is set aside
    during the import. Where the user's XLA_FLAGS leave the width of vectors open, they come to
    ask for `WIDE_VECTORS`, which the compiler reads once and which changes no bit.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    xla_flags = os.environ.get("XLA_FLAGS", "")
    if WIDE_VECTORS.partition("=")[0] not in xla_flags:
        os.environ["XLA_FLAGS"] = f"{xla_flags} {WIDE_VECTORS}".strip()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        kept = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow as tf

            # Touching the devices here makes the lines about absent GPUs come now.
            return (first or tf.config.list_logical_devices)()
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def run_script(parser, run, argv=None):
    """Parses `argv`, calls `run(args)` and turns what goes wrong into one line and an exit code.

    Args:
        parser: of the script; its `prog` begins the error line.
        run: function of the parsed flags, returns an exit code or None for 0.
        argv: list of strings; None: those of the command line.

    Returns:
        The exit code: 0 done, 2 input or environment, 3 the loss is no longer finite, 130 or
        143 interrupted.
    """
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code
    try:
        return run(args) or 0
    except UserError as error:
        message, code = str(error), error.code
    except KeyboardInterrupt:
        message, code = "interrupted; nothing was saved after the last line above", 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        message = f"{where}{reason}: mend that (space, rights, the folder itself) and run again"
        code = EXIT_INPUT
    except MemoryError:
        message, code = "out of memory: try a smaller --batch", EXIT_INPUT
    sys.stdout.flush()
    print(f"{parser.prog}: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code
