"""What the scripts share as commands: flag types, common flags, the one error line, exit codes.

    @cli.script(parser)          # main(argv) parses, runs, and returns the exit code
    def main(args): ...

Imported by every script before anything heavy, so that `--help` and a wrong flag answer at once:
nothing here imports NumPy or TensorFlow at the top.
"""

import argparse
import contextlib
import difflib
import functools
import os
import signal
import sys
import tempfile

from support import Interrupted, NotFinite, UserError

LARGEST = 2**31 - 1
# XLA leaves half of an AVX-512 unit idle unless asked: 3 % of a training step.
WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
# TensorFlow and Keras import these where they find them, for parts that nobody needs here: a third
# of the time that a script takes to start.
NOT_NEEDED = ("jax", "matplotlib", "sklearn")
# What other repositories call a flag, where spelling alone would not find ours.
KNOWN_AS = {"--lr": "--learning_rate", "--z_dim": "--latent_dim", "--num_samples": "--num"}


def integer(minimum, maximum=LARGEST):
    """A type for argparse: a whole number from `minimum` to `maximum`."""
    return _within(int, "a whole number from", minimum, maximum)


def number(minimum, maximum):
    """A type for argparse: a number from `minimum` to `maximum`."""
    return _within(float, "a number from", minimum, maximum)


def _within(kind, name, minimum, maximum):
    def parse(text):
        with contextlib.suppress(ValueError):
            if minimum <= kind(text) <= maximum:
                return kind(text)
        raise argparse.ArgumentTypeError(f"expected {name} {minimum} to {maximum}, got {text!r}")

    return parse


class Parser(argparse.ArgumentParser):
    """A parser of one script: defaults in `--help`, one line for what is wrong.

    Its results have one attribute more: `given`, the names of the flags that were typed.

    Args:
        script: the script's name.
        docstring: of the script; the description.
    """

    def __init__(self, script, docstring):
        super().__init__(
            prog=script,
            description=docstring,
            formatter_class=lambda prog: _Formatter(prog, max_help_position=32),
            allow_abbrev=False,
        )
        bits = "same seed, same machine: same bits"
        self.add_argument("--seed", type=integer(0), default=0, help=bits)

    def parse_args(self, argv=None):
        """As argparse's own, with `given`; an unknown flag is told which one was meant."""
        args, unknown = self.parse_known_args(argv)
        if unknown:
            self.error(self._unknown(unknown[0], vars(args)))
        blank = argparse.Namespace(**dict.fromkeys(vars(args)))
        typed = vars(self.parse_known_args(argv, blank)[0])
        args.given = frozenset(name for name, value in typed.items() if value is not None)
        for name, value in vars(args).items():
            # TensorFlow takes no other names of files.
            if spelled(value) != spelled(value).encode(errors="replace").decode():
                self.error(f"--{name} is not valid UTF-8: rename the file or folder")
        return args

    def error(self, message):
        self.exit(UserError.code, f"{self.prog}: error: {message}\n")

    def _unknown(self, word, names):
        flag, ours = word.partition("=")[0], [f"--{name}" for name in names]
        meant = [KNOWN_AS[flag]] if KNOWN_AS.get(flag) in ours else []
        meant += difflib.get_close_matches(flag, ours, 1, 0.7)
        hint = f"did you mean {meant[0]}?" if meant else "see --help"
        return f"{flag} is not a flag of {self.prog}: {hint}"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the docstring and shows every default that is a value."""

    def _get_help_string(self, action):
        if action.default is None:
            return action.help
        if action.default is False or action.default == "":
            return f"{action.help} (default: none)"
        return super()._get_help_string(action)


def add_data_flags(parser, auto):
    """Adds `--dataset` and `--data_dir`: which images, and where they are.

    Args:
        auto: what the default, `auto`, means in this script.
    """
    group = parser.add_argument_group("data")
    choices = ("auto", "mnist", "fashion_mnist", "kmnist", "digits", "custom")
    group.add_argument("--dataset", choices=choices, default="auto", help=f"auto: {auto}")
    place = "a folder with mnist.npz or the IDX files, or an .npz; else MNIST_DIR, else a download"
    group.add_argument("--data_dir", default=os.environ.get("MNIST_DIR", ""), help=place)


def add_weights_flag(parser):
    """Adds `--load_weight_dir`: the weights to look at."""
    place = "a folder that train.py wrote, or a .keras file of one"
    parser.add_argument("--load_weight_dir", default="./better_weight", help=place)


def weights_folder(args):
    """Returns what `--load_weight_dir` names; its default stands beside the scripts."""
    if "load_weight_dir" in args.given:
        return args.load_weight_dir
    root = os.path.dirname(os.path.dirname(__file__))
    return os.path.normpath(os.path.join(root, args.load_weight_dir))


def add_output_flag(parser):
    """Adds `--output_dir`: where pictures and figures go."""
    parser.add_argument("--output_dir", default="./result", help="where pictures and files go")


def values(args, add_flags):
    """Returns the values, by name, of those flags that the function `add_flags` adds."""
    bare = argparse.ArgumentParser(add_help=False)
    add_flags(bare)
    return {name: getattr(args, name) for name in vars(bare.parse_args([]))}


@contextlib.contextmanager
def explained(before="", after=""):
    """Adds to the message of a `UserError` from inside the block: what rooms that know no flags
    cannot say."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{before}{error}{after}") from error


def spelled(value):
    """Returns a flag's value as one types it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def quiet_tensorflow(first=None):
    """Imports TensorFlow with its start-up lines kept off the screen; an error still shows.

    The first lines come from C++ before any log level is read, so stderr itself is set aside
    during the import. Where the user's XLA_FLAGS leave the width of vectors open, they come to
    ask for `WIDE_VECTORS`, which the compiler reads once and which changes no bit.

    Args:
        first: a function to call first of all, while lines are still kept off.

    Returns:
        What `first` returned.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    xla_flags = os.environ.get("XLA_FLAGS", "")
    if WIDE_VECTORS.partition("=")[0] not in xla_flags:
        os.environ["XLA_FLAGS"] = f"{xla_flags} {WIDE_VECTORS}".strip()
    sys.stderr.flush()
    # None: not to be found, says Python's import.
    hidden = dict.fromkeys(name for name in NOT_NEEDED if name not in sys.modules)
    sys.modules.update(hidden)
    with tempfile.TemporaryFile() as aside:
        kept = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            try:
                import keras
                import tensorflow as tf
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                raise UserError(f"TensorFlow cannot be loaded ({why}): more memory?") from error
            finally:
                for name in hidden:
                    del sys.modules[name]
            # Whatever the user's keras.json says.
            keras.config.set_floatx("float32")
            # Touching the devices here makes the lines about absent GPUs come now.
            return (first or tf.config.list_logical_devices)()
        except Exception:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def script(parser):
    """Makes `main(args)` a function of argv that returns the exit code.

    What goes wrong becomes one last line on stderr, which starts with the script's name. Exit
    codes: 0 done, 2 input or environment, 3 no longer finite, 128 + n ended by signal n.

    Args:
        parser: function without arguments that returns the script's `Parser`.
    """

    def decorated(main):
        @functools.wraps(main)
        def run(argv=None):
            flags = parser()
            try:
                with _ordinary_process():
                    return main(flags.parse_args(argv)) or 0
            except SystemExit as stop:
                return stop.code
            except (UserError, NotFinite) as error:
                code, message = error.code, f"error: {error}"
            except Interrupted as stop:
                code, message = stop.code, str(stop)
            except KeyboardInterrupt:
                code, message = 130, "interrupted; what was saved before is intact"
            except MemoryError:
                code, message = UserError.code, "error: out of memory: try a smaller --batch"
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                gone = isinstance(error, BrokenPipeError)
                what = "whoever read the output has gone" if gone else "check space and permissions"
                message = f"error: {where}{error.strerror or error}: {what}"
                code = UserError.code
            sys.stdout.flush()
            print(f"{flags.prog}: {' '.join(message.split())}", file=sys.stderr, flush=True)
            return code

        return run

    return decorated


@contextlib.contextmanager
def _ordinary_process():
    """Gives a script the three standard streams, where some are closed, and turns SIGTERM into
    `Interrupted` until something else handles it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Takes the lowest free number, which is the missing one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))

    def terminated(signum, _frame):
        raise Interrupted("interrupted; what was saved before is intact", signum)

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        # None: not Python's, and not Python's to give back.
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
