"""The command line that the scripts share: flag types, common flags, error lines, exit codes.

    @cli.script(parser)          # main(argv) parses, runs, and returns the exit code
    def main(args): ...

Every script imports this before anything heavy, and nothing here imports NumPy or TensorFlow, so
that `--help` and wrong flags are answered at once.
"""

import argparse
import contextlib
import difflib
import errno
import functools
import io
import os
import re
import select
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from support import records
from support.errors import Interrupted, NotFiniteError, UserError
from support.text import visible

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LARGEST_INTEGER = 2**31 - 1
# Names of flags in other repositories that are not similar enough to ours to be recognized.
OTHER_NAMES = {
    "--z_dim": "--latent_dim",
    "--z_size": "--latent_dim",
    "--nz": "--latent_dim",
    "--hidden_dim": "--hidden_units",
    "--hidden_dims": "--hidden_units",
    "--hidden_size": "--hidden_units",
    "--num_samples": "--num",
    "--n_samples": "--num",
    "--num_epochs": "--epoch",
    "--n_epochs": "--epoch",
    "--max_epochs": "--epoch",
    "--log_interval": "--log_every",
    "--kl_weight": "--beta",
    "--kld_weight": "--beta",
    "--warp": "--elastic",
    "--checkpoint": "--load_weight_dir",
    "--resume": "--load_weight_dir",
    "--force": "--overwrite",
    "--output": "--output_dir",
}
DATASETS = ("auto", *records.DATASETS)
# Signals that end a process: a lost connection sends SIGHUP; SIGBREAK exists only on Windows.
TERMINATION = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
# What a script prints if it is interrupted before it has anything to save.
INTERRUPTED = "interrupted"
# By which a scheduler announces the end of a process: training saves, the other scripts go on.
SAVE_REQUEST = tuple(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name))
# The exit code of a process that SIGPIPE ends.
PIPE_CLOSED = 128 + 13
# Windows reports a closed pipe as an invalid argument.
CLOSED_PIPE = (errno.EPIPE, errno.EINVAL) if os.name == "nt" else (errno.EPIPE,)
OUT_OF_MEMORY = "out of memory: use a smaller --batch, a smaller network, or a larger machine"
# The smallest value of a flag that must be above 0.
ABOVE_ZERO = 1e-30


def integer(minimum: int, maximum: int = LARGEST_INTEGER) -> Callable[[str], int]:
    """Returns a type for argparse: a whole number from `minimum` to `maximum`."""
    return _in_range(int, "a whole number", minimum, maximum)


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """Returns a type for argparse: a number from `minimum` to `maximum`."""
    return _in_range(float, "a number", minimum, maximum)


def path(text: str) -> str:
    """A type for argparse: a path in which `~` is the home directory.

    Shells expand it at the beginning of a word only, and so not in `--log_dir=~/log`.
    """
    return os.path.expanduser(text)


def integers(minimum: int, maximum: int) -> Callable[[str], int]:
    """As `integer`, for a flag that takes several: it explains values that are not separated."""
    parse_one = integer(minimum, maximum)

    def parse(text: str) -> int:
        try:
            return parse_one(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}{separation_hint(text)}") from error

    return parse


def separation_hint(text: str) -> str:
    """Returns how to type values that were typed as one, such as `512,256`; else an empty string.

    Args:
        text: a value of a flag that takes several.
    """
    values = [value for value in re.split(r"[\s,;()\[\]]+|(?<=\d)x(?=\d)", text) if value]
    if len(values) < 2 or not all(value.isalnum() for value in values):
        return ""
    return f": separate the values with blanks, {as_typed(values):.80}"


def _in_range(kind: type, name: str, minimum: float, maximum: float) -> Callable[[str], Any]:
    least = "above 0 and at most" if minimum == ABOVE_ZERO else f"from {minimum:.15g} to"

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if minimum <= value <= maximum:
                return value
        raise argparse.ArgumentTypeError(f"expected {name} {least} {maximum:.15g}, got {text!r}")

    return parse


class Parser(argparse.ArgumentParser):
    """A parser of one script's flags: `--help` shows defaults, and an error is one line.

    The parsed arguments have one more attribute, `given`: the names of the flags that the user
    typed.

    Args:
        script: the script's name.
        docstring: the script's docstring, shown as its description.
    """

    def __init__(self, script: str, docstring: str | None) -> None:
        super().__init__(
            prog=script,
            description=docstring,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )

    def parse_args(self, argv: Sequence[str] | None = None) -> argparse.Namespace:  # type: ignore[override]
        """Parses flags; the error about an unknown flag suggests the closest known one."""
        args, unknown = self.parse_known_args(argv)
        if unknown:
            self.error(self._unknown_flag(unknown[0]))
        args.given = self._given_flags(argv, args)
        for name, value in vars(args).items():
            if value == "" and name in args.given:
                self.error(f"--{name} is empty: give a path, or leave the flag out")
            # TensorFlow accepts only file names in UTF-8.
            if not _is_utf8(as_typed(value)):
                self.error(f"--{name} is not valid UTF-8: rename the file or folder")
        return args

    def command(self, args: argparse.Namespace, **changes: str | int | None) -> str:
        """Returns the command that gave parsed arguments, changed, ready to be pasted into a shell.

        Args:
            args: the parsed arguments.
            changes: the values of flags to add or replace, by name; None: without this flag.
        """
        words = [script_command(self.prog)]
        for action in self._actions:
            name = action.dest
            value = changes.get(name, getattr(args, name, None))
            if value is None or name not in args.given | changes.keys():
                continue
            flag = action.option_strings[0]
            if isinstance(value, bool):
                # The second name of a flag that is on or off is --no-...
                words.append(flag if value else action.option_strings[1])
            else:
                values = value if isinstance(value, list) else [value]
                words += [flag, *(shlex.quote(str(one)) for one in values)]
        return " ".join(words)

    def error(self, message: str) -> NoReturn:
        """Prints one line and ends the script."""
        self.exit(UserError.code, f"{self.prog}: error: {visible(message)}\n")

    def _given_flags(self, argv: Sequence[str] | None, args: argparse.Namespace) -> frozenset[str]:
        """Returns the names of the flags in `argv`, by parsing it without defaults."""
        blank = argparse.Namespace(**dict.fromkeys(vars(args)))
        typed, _ = self.parse_known_args(argv, blank)
        return frozenset(name for name, value in vars(typed).items() if value is not None)

    def _unknown_flag(self, word: str) -> str:
        """Returns a message about a word that is not a flag, with the flag that was meant."""
        flag = word.partition("=")[0]
        known = [option for option in self._option_string_actions if option.startswith("--")]
        close = difflib.get_close_matches(flag, known, 1, 0.7)
        if flag == "-f":
            # Jupyter starts its kernels with `-f kernel.json`.
            hint = "in a notebook, pass the flags as a list, such as main(['--seed', '1'])"
        elif flag == "--resume" and "--save_weight_dir" in known:
            hint = "an interrupted run continues when its command is repeated, with its folders"
        elif OTHER_NAMES.get(flag) in known:
            hint = f"did you mean {OTHER_NAMES[flag]}?"
        elif close:
            hint = f"did you mean {close[0]}?"
        else:
            hint = "see --help"
        return f"{flag} is not a flag of {self.prog}: {hint}"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the docstring, and shows the default of every flag that has one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None:
            return action.help
        if isinstance(action.default, bool):
            # Python before 3.13 adds the value itself, as `True`.
            text = (action.help or "").removesuffix(" (default: %(default)s)")
            return f"{text} (default: {'on' if action.default else 'off'})"
        if action.default == "":
            return f"{action.help} (default: none)"
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {as_typed(action.default)})"
        return super()._get_help_string(action)


def add_data_flags(parser: argparse.ArgumentParser, auto: str) -> argparse._ArgumentGroup:
    """Adds the flags of the data set, and returns their group.

    Args:
        parser: a script's parser.
        auto: what the default, `auto`, means in this script.
    """
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", choices=DATASETS, default="auto", help=f"auto: {auto}")
    group.add_argument(
        "--data_dir",
        type=path,
        metavar="PATH",
        help="file, folder or archive that holds the images (default: for MNIST the path in the "
        "environment variable MNIST_DIR, if it is set; otherwise a download)",
    )
    group.add_argument(
        "--transpose",
        action=argparse.BooleanOptionalAction,
        help="exchange the rows and columns of the images (default: only for EMNIST, whose images "
        "lie on their sides)",
    )
    return group


def data_dir(args: argparse.Namespace, dataset: str) -> str:
    """Returns the path of the images; an empty string if they are to be downloaded.

    The path is that of `--data_dir` or, if this flag is not given, and only for MNIST, that in the
    environment variable MNIST_DIR.

    Args:
        args: the parsed flags.
        dataset: the data set to load, as given to `--dataset`.

    Raises:
        UserError: there is no path, but `--transpose` or its opposite is given.
    """
    if args.data_dir is not None:
        return str(args.data_dir)
    found = os.environ.get("MNIST_DIR", "") if dataset in ("auto", "mnist") else ""
    if args.transpose is not None and not found:
        flag = "--transpose" if args.transpose else "--no-transpose"
        raise UserError(
            f"{flag} is for images in files of your own: add --data_dir, or leave it out"
        )
    return found


def add_seed_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--seed`."""
    parser.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        help="random seed; on the same machine, and with the same number of cores, the same seed "
        "gives bit-identical results",
    )


def add_load_weights_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--load_weight_dir`: the weights to evaluate or to generate with."""
    parser.add_argument(
        "--load_weight_dir",
        type=path,
        default="./better_weight",
        metavar="PATH",
        help="a folder that train.py wrote, or a .keras file in it",
    )


def weights_path(args: argparse.Namespace) -> str:
    """Returns the path in `--load_weight_dir`; its default is in the folder of the scripts."""
    if "load_weight_dir" in args.given:
        return str(args.load_weight_dir)
    return os.path.normpath(os.path.join(ROOT, args.load_weight_dir))


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--output_dir`: the folder for pictures and other results."""
    parser.add_argument(
        "--output_dir",
        type=path,
        default="./result",
        metavar="FOLDER",
        help="folder for the output files",
    )


@contextlib.contextmanager
def error_context(
    before: str = "", after: str = "", error_type: type[UserError] = UserError
) -> Iterator[None]:
    """Adds to the message of a `UserError` which flag it is about, or what to do.

    The modules that raise it do not know the flags.

    Args:
        before, after: text to add before and after the message.
        error_type: the errors whose messages are extended.
    """
    try:
        yield
    except error_type as error:
        raise error_type(f"{before}{error}{after}") from error


def script_command(script: str) -> str:
    """Returns how a script of this project is started from the working directory."""
    if os.path.realpath(os.curdir) != os.path.realpath(ROOT):
        script = shlex.quote(os.path.join(ROOT, script))
    return f"python {script}"


def shown_path(path: str) -> str:
    """Returns the shorter one of a path's absolute form and of that from the working directory."""
    absolute = os.path.abspath(path)
    try:
        return min(os.path.relpath(absolute), absolute, key=len)
    except ValueError:
        # On Windows, if it is on another drive.
        return absolute


def as_argument(path: str) -> str:
    """Returns a path as it is typed in a shell, without control characters."""
    return visible(shlex.quote(path))


def as_typed(value: Any) -> str:
    """Returns a flag's value as a user types it."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def _is_utf8(text: str) -> bool:
    """Whether Python could decode all bytes of a text."""
    return text == text.encode(errors="replace").decode()


def script(
    parser: Callable[[], Parser],
) -> Callable[[Callable[[argparse.Namespace], int | None]], Callable[..., int]]:
    """Turns `main(args)` into a function of argv that returns the exit code.

    An error becomes one last line on stderr, which starts with the script's name. Exit codes: 0
    success; 2 a problem with the input or the environment; 3 a loss became NaN or infinite; 128 + n
    ended by signal n. If the program that reads the output has ended (`| head`), nothing is said,
    and the code is that of SIGPIPE, as with other tools.

    Args:
        parser: function without arguments that returns the script's `Parser`.
    """

    def decorated(main: Callable[[argparse.Namespace], int | None]) -> Callable[..., int]:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            flags = parser()
            _open_missing_streams()
            _print_any_text()
            interruptions: list[int] = []
            try:
                with _signals_interrupt(interruptions):
                    code = main(flags.parse_args(argv)) or 0
                return PIPE_CLOSED if _nobody_reads_the_output() else code
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
                return PIPE_CLOSED if _nobody_reads_the_output() else code
            except BaseException as error:
                _nobody_reads_the_output()
                # That of the output: errors of sockets are handled where they arise.
                if _is_closed_pipe(error):
                    return PIPE_CLOSED
                ended = _as_code_and_message(error, interruptions)
                if ended is None:
                    raise
                code, message = ended
            one_line = visible(" ".join(message.split()))
            print(f"{flags.prog}: {one_line}", file=sys.stderr, flush=True)
            return code

        return run

    return decorated


def end_process(code: int) -> NoReturn:
    """Ends the process with an exit code.

    If TensorFlow has been imported, the interpreter takes more than a second to take everything
    down, and nothing depends on that: files are closed, and locks released, where they were used.
    """
    if "tensorflow" not in sys.modules:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        # Nobody may read them any more.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _as_code_and_message(
    error: BaseException, interruptions: Sequence[int]
) -> tuple[int, str] | None:
    """Returns the exit code and the last line for an exception; None if it is a bug.

    Args:
        error: what ended the script.
        interruptions: the signals that arrived before. TensorFlow turns the exception that a
            signal's handler raises in the middle of its code into others.
    """
    if isinstance(error, Interrupted):
        return error.code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT, INTERRUPTED
    if isinstance(error, UserError | NotFiniteError):
        return error.code, f"error: {error}"
    if interruptions:
        return 128 + interruptions[0], INTERRUPTED
    problem = _tensorflow_problem(error)
    if problem:
        return UserError.code, f"error: {problem}"
    if isinstance(error, MemoryError):
        return UserError.code, f"error: {OUT_OF_MEMORY}"
    if isinstance(error, OSError):
        return UserError.code, f"error: {_described(error)}"
    return None


def _tensorflow_problem(error: BaseException) -> str:
    """Returns a message about an error of TensorFlow that the user can fix; empty for others."""
    # Not imported here: it takes seconds, and only TensorFlow raises TensorFlow's exceptions.
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return ""
    if isinstance(error, tensorflow.errors.ResourceExhaustedError):
        return OUT_OF_MEMORY
    if "libdevice" in str(error):
        return (
            "XLA cannot find CUDA's libdevice: run pip install 'tensorflow[and-cuda]', or set "
            "XLA_FLAGS=--xla_gpu_cuda_data_dir=/path/to/cuda"
        )
    return ""


def _described(error: OSError) -> str:
    """Returns the message of an error of the operating system, and what to do."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}: check the free disk space and the permissions"


def _nobody_reads_the_output() -> bool:
    """Flushes the output, and returns whether the program that reads it has ended."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # After other errors, such as a full disk, what the script has to say goes to stderr.
        if not _is_closed_pipe(error):
            return False
        # Python flushes once more when it ends, and would report the error then.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return True
    return False


def _is_closed_pipe(error: BaseException) -> bool:
    """Whether this is the error of a write to a pipe whose reader has ended."""
    return isinstance(error, OSError) and error.errno in CLOSED_PIPE and not error.filename


def _open_missing_streams() -> None:
    """Opens those of the three standard streams that are closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The system gives a new descriptor the lowest free number, which is the missing one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _print_any_text() -> None:
    """Makes characters that the terminal's encoding lacks, as in file names, print as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _signals_interrupt(received: list[int]) -> Iterator[None]:
    """Turns signals that end a process into `Interrupted` until something else handles them.

    Args:
        received: gets the numbers of these signals.
    """

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)
        drop_unread_output()
        raise Interrupted(INTERRUPTED, signum)

    with (
        handled((signal.SIGINT, *TERMINATION), interrupt),
        handled(SAVE_REQUEST, lambda _signum, _frame: None),
    ):
        yield


def drop_unread_output() -> None:
    """Discards further output where nobody reads it, as when a pipe is full.

    Otherwise a process that is to end would wait for ever to print its last line. For the handlers
    of signals: a write that was waiting goes on into the null device.
    """
    if os.name != "posix":
        return
    for descriptor in (1, 2):
        with contextlib.suppress(OSError, ValueError):
            _, writable, _ = select.select([], [descriptor], [], 0)
            if not writable:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)


@contextlib.contextmanager
def handled(
    signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handles signals inside the block, except those that this process ignores (`nohup`).

    Python handles signals only in the main thread. In another one, as in some notebooks and web
    applications, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signals}
    changed = [number for number in signals if before[number] is not signal.SIG_IGN]
    for number in changed:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in changed:
            # None stands for a handler that is not Python's, which Python cannot restore.
            signal.signal(number, before[number] or signal.SIG_DFL)
