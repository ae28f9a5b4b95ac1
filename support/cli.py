"""What the scripts share as commands: flag types, common flags, the error line, exit codes.

    @cli.script(parser)          # main(argv) parses, runs, and returns the exit code
    def main(args): ...

Imported by every script before anything heavy, so that `--help` and a wrong flag answer at once:
nothing here imports NumPy or TensorFlow.
"""

import argparse
import contextlib
import difflib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from support.errors import Interrupted, NotFiniteError, UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LARGEST_INTEGER = 2**31 - 1
# What other repositories call a flag, where spelling alone would not find ours.
OTHER_NAMES = {
    "--z_dim": "--latent_dim",
    "--num_samples": "--num",
    "--num_epochs": "--epoch",
    "--n_epochs": "--epoch",
    "--warp": "--elastic",
    "--checkpoint": "--load_weight_dir",
}
DATASETS = ("auto", "mnist", "fashion_mnist", "kmnist", "digits", "custom")
# Signals by which a system ends a process: a dropped connection sends SIGHUP; Windows has SIGBREAK.
TERMINATION = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
# What a script says where it was interrupted before it had anything to save.
INTERRUPTED = "interrupted"


def integer(minimum: int, maximum: int = LARGEST_INTEGER) -> Callable[[str], int]:
    """Returns a type for argparse: a whole number from `minimum` to `maximum`."""
    return _in_range(int, "a whole number", minimum, maximum)


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """Returns a type for argparse: a number from `minimum` to `maximum`."""
    return _in_range(float, "a number", minimum, maximum)


def _in_range(kind: type, name: str, minimum: float, maximum: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if minimum <= value <= maximum:
                return value
        raise argparse.ArgumentTypeError(
            f"expected {name} from {minimum} to {maximum}, got {text!r}"
        )

    return parse


class Parser(argparse.ArgumentParser):
    """A parser of one script's flags: defaults in `--help`, one line for what is wrong.

    The parsed arguments have one more attribute, `given`: the names of the flags that the user
    typed.

    Args:
        script: the script's name.
        docstring: of the script, shown as its description.
    """

    def __init__(self, script: str, docstring: str | None) -> None:
        super().__init__(
            prog=script,
            description=docstring,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )

    def parse_args(self, argv: Sequence[str] | None = None) -> argparse.Namespace:  # type: ignore[override]
        """Parses flags; of an unknown flag the error names the closest known one."""
        args, unknown = self.parse_known_args(argv)
        if unknown:
            self.error(self._unknown_flag(unknown[0]))
        args.given = self._given_flags(argv, args)
        for name, value in vars(args).items():
            if value == "" and name in args.given:
                self.error(f"--{name} is empty: name a file or folder, or leave the flag out")
            # TensorFlow accepts file names in UTF-8 alone.
            if not _is_utf8(as_typed(value)):
                self.error(f"--{name} is not valid UTF-8: rename the file or folder")
        return args

    def error(self, message: str) -> NoReturn:
        """Ends the script with one line."""
        self.exit(UserError.code, f"{self.prog}: error: {message}\n")

    def _given_flags(self, argv: Sequence[str] | None, args: argparse.Namespace) -> frozenset[str]:
        """Returns the names of the flags in `argv`: those that replace a blank value."""
        blank = argparse.Namespace(**dict.fromkeys(vars(args)))
        typed, _ = self.parse_known_args(argv, blank)
        return frozenset(name for name, value in vars(typed).items() if value is not None)

    def _unknown_flag(self, word: str) -> str:
        """Returns what is wrong with a word that is no flag, and which flag was meant."""
        flag = word.partition("=")[0]
        known = [option for option in self._option_string_actions if option.startswith("--")]
        close = difflib.get_close_matches(flag, known, 1, 0.7)
        if OTHER_NAMES.get(flag) in known:
            hint = f"did you mean {OTHER_NAMES[flag]}?"
        elif close:
            hint = f"did you mean {close[0]}?"
        else:
            hint = "see --help"
        return f"{flag} is not a flag of {self.prog}: {hint}"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the docstring and shows every default that is a value."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None:
            return action.help
        if action.default is False or action.default == "":
            return f"{action.help} (default: none)"
        return super()._get_help_string(action)


def add_data_flags(parser: argparse.ArgumentParser, auto: str) -> argparse._ArgumentGroup:
    """Adds `--dataset` and `--data_dir`: which images, and where they are; returns their group.

    Args:
        parser: of a script.
        auto: what the default, `auto`, means in this script.
    """
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", choices=DATASETS, default="auto", help=f"auto: {auto}")
    group.add_argument(
        "--data_dir",
        metavar="PATH",
        help="a file, folder or archive with the images (default: the environment variable "
        "MNIST_DIR for MNIST, otherwise a download)",
    )
    group.add_argument(
        "--transpose",
        action=argparse.BooleanOptionalAction,
        help="exchange rows and columns of the images (default: of EMNIST's files, in which they "
        "lie on their sides)",
    )
    return group


def data_dir(args: argparse.Namespace, dataset: str) -> str:
    """Returns where the images are, or an empty text for a download.

    Args:
        args: with `--data_dir`; without it, MNIST_DIR is where MNIST is, and no other data set.
        dataset: which one is to be loaded, as `--dataset` names it.
    """
    if args.data_dir is not None:
        return str(args.data_dir)
    if dataset in ("auto", "mnist"):
        return os.environ.get("MNIST_DIR", "")
    return ""


def add_seed_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--seed`."""
    parser.add_argument(
        "--seed", type=integer(0), default=0, help="same seed, same machine: same bits"
    )


def add_load_weights_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--load_weight_dir`: the weights to evaluate or to generate with."""
    parser.add_argument(
        "--load_weight_dir",
        default="./better_weight",
        metavar="PATH",
        help="a folder that train.py wrote, or a .keras file of one",
    )


def weights_path(args: argparse.Namespace) -> str:
    """Returns what `--load_weight_dir` names; its default lies beside the scripts."""
    if "load_weight_dir" in args.given:
        return str(args.load_weight_dir)
    return os.path.normpath(os.path.join(ROOT, args.load_weight_dir))


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--output_dir`: the folder for pictures and figures."""
    parser.add_argument(
        "--output_dir", default="./result", metavar="FOLDER", help="where pictures and files go"
    )


@contextlib.contextmanager
def error_context(
    before: str = "", after: str = "", error_type: type[UserError] = UserError
) -> Iterator[None]:
    """Adds to the message of a `UserError` which flag it is about, or the way out.

    Modules that know no flags cannot say that.

    Args:
        before, after: what to add.
        error_type: of the errors to add to.
    """
    try:
        yield
    except error_type as error:
        raise error_type(f"{before}{error}{after}") from error


def as_typed(value: Any) -> str:
    """Returns a flag's value as a user types it."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def _is_utf8(text: str) -> bool:
    """Whether a text holds no bytes that Python could not decode."""
    return text == text.encode(errors="replace").decode()


def script(
    parser: Callable[[], Parser],
) -> Callable[[Callable[[argparse.Namespace], int | None]], Callable[..., int]]:
    """Makes `main(args)` a function of argv that returns the exit code.

    What goes wrong becomes one last line on stderr, which starts with the script's name. Exit
    codes: 0 done, 2 input or environment, 3 no longer finite, 128 + n ended by signal n.

    Args:
        parser: function without arguments that returns the script's `Parser`.
    """

    def decorated(main: Callable[[argparse.Namespace], int | None]) -> Callable[..., int]:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            flags = parser()
            _open_missing_streams()
            try:
                with _termination_interrupts():
                    return main(flags.parse_args(argv)) or 0
            except SystemExit as stop:
                return stop.code if isinstance(stop.code, int) else 1
            except (UserError, NotFiniteError) as error:
                code, message = error.code, f"error: {error}"
            except Interrupted as stop:
                code, message = stop.code, str(stop)
            except KeyboardInterrupt:
                code, message = 128 + signal.SIGINT, INTERRUPTED
            except MemoryError:
                code, message = UserError.code, "error: out of memory: try a smaller --batch"
            except OSError as error:
                code, message = UserError.code, f"error: {_described(error)}"
            sys.stdout.flush()
            one_line = " ".join(message.split())
            print(f"{flags.prog}: {one_line}", file=sys.stderr, flush=True)
            return code

        return run

    return decorated


def _described(error: OSError) -> str:
    """Returns what an error of the operating system says, and what to do."""
    where = f"{error.filename}: " if error.filename else ""
    if isinstance(error, BrokenPipeError):
        advice = "the program that read this output has ended"
    else:
        advice = "check that there is space and that you may write there"
    return f"{where}{error.strerror or error}: {advice}"


def _open_missing_streams() -> None:
    """Gives the script the three standard streams, where some were closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The system gives a new descriptor the lowest free number, which is the missing one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Turns signals that end a process into `Interrupted` until something else handles them."""

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(INTERRUPTED, signum)

    with handled(TERMINATION, interrupt):
        yield


@contextlib.contextmanager
def handled(
    signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handles signals inside the block, but for those that this process ignores (`nohup`).

    Python handles signals in the main thread alone: in another one, as in some notebooks and web
    applications, nothing is handled.
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
