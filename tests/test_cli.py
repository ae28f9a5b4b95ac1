"""support/cli.py: flags, hints, the one line of an error, exit codes."""

import argparse
import array
import contextlib
import errno
import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf

from support import cli
from support.errors import Interrupted, NotFiniteError, OtherRunError, UserError
from tests.helpers import ROOT, STARTED


def toy():
    """A parser with one flag of each kind."""
    parser = cli.Parser("toy.py", "A toy.\n\n    python toy.py   # as it is typed\n")
    parser.add_argument("--epoch", "--epochs", dest="epochs", type=cli.integer(1, 9), default=3)
    parser.add_argument("--latent_dim", type=cli.integer(1), default=2, help="size of z")
    parser.add_argument("--learning_rate", type=cli.number(1e-30, 1e6), help="(default: 1)")
    parser.add_argument("--load_weight_dir", default="", help="weights")
    parser.add_argument("--overwrite", action="store_true", help="start again")
    cli.add_seed_flag(parser)
    return parser


def run_toy(main, argv=()):
    return cli.script(toy)(main)(list(argv))


@pytest.mark.parametrize("text", ["1", "9", "+3", " 4 "])
def test_whole_numbers_in_their_range_are_taken(text):
    assert cli.integer(1, 9)(text) == int(text)


@pytest.mark.parametrize("text", ["0", "10", "1.5", "", "many", "nan", "1e1"])
def test_no_whole_number_in_the_range_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        cli.integer(1, 9)(text)
    assert str(error.value) == f"expected a whole number from 1 to 9, got {text!r}"


@pytest.mark.parametrize("text", ["512,256", "512x256", "[512, 256]", "512;256", "512 256"])
def test_values_that_are_not_separated_are_shown_separated(text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        cli.integers(1, 900)(text)
    assert str(error.value) == (
        f"expected a whole number from 1 to 900, got {text!r}: "
        "separate the values with blanks, 512 256"
    )


@pytest.mark.parametrize("text", ["0", "901", "many", "max", "1.5", "512,", "-5"])
def test_one_wrong_value_of_several_is_no_missing_blank(text):
    assert cli.integers(1, 900)("512") == 512 and cli.separation_hint(text) == ""
    with pytest.raises(argparse.ArgumentTypeError, match=f"from 1 to 900, got '{text}'$"):
        cli.integers(1, 900)(text)


def test_a_whole_number_fits_32_bits():
    assert cli.integer(0)("2147483647") == 2**31 - 1
    with pytest.raises(argparse.ArgumentTypeError):
        cli.integer(0)("2147483648")


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "2", "x"])
def test_no_number_in_the_range_is_refused(text):
    assert cli.number(0, 1)("0.5") == 0.5 and cli.number(0, 1)("1") == 1.0
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected a number from 0 to 1, got "):
        cli.number(0, 1)(text)


def test_the_range_of_a_number_is_shown_without_exponents():
    for parse, says in (
        (cli.number(0, 1e6), "expected a number from 0 to 1000000, got '-1'"),
        (cli.number(0, 0.999999), "expected a number from 0 to 0.999999, got '-1'"),
        (
            cli.number(cli.ABOVE_ZERO, 1e6),
            "expected a number above 0 and at most 1000000, got '-1'",
        ),
        (cli.integer(0), "expected a whole number from 0 to 2147483647, got '-1'"),
    ):
        with pytest.raises(argparse.ArgumentTypeError) as error:
            parse("-1")
        assert str(error.value) == says


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--epcoh", "5"], "--epcoh is not a flag of toy.py: did you mean --epoch?"),
        (["--latent=5"], "--latent is not a flag of toy.py: did you mean --latent_dim?"),
        (["--z_dim", "5"], "--z_dim is not a flag of toy.py: did you mean --latent_dim?"),
        (["--num_epochs", "5"], "--num_epochs is not a flag of toy.py: did you mean --epoch?"),
        (["--checkpoint", "x"], "did you mean --load_weight_dir?"),
        (["--max_epochs=5"], "--max_epochs is not a flag of toy.py: did you mean --epoch?"),
        # A hint is always a flag of the same script.
        (["--warp", "1"], "--warp is not a flag of toy.py: see --help"),
        (["--nothing", "5"], "--nothing is not a flag of toy.py: see --help"),
        (["word"], "word is not a flag of toy.py: see --help"),
        (["--epoch", "0"], "argument --epoch/--epochs: expected a whole number from 1 to 9"),
        (["--load_weight_dir", "\udcff"], "--load_weight_dir is not valid UTF-8"),
        (["--load_weight_dir", ""], "--load_weight_dir is empty: give a path"),
        # Nothing is abbreviated: a new flag must not change what an old command means.
        (["--seed_", "1"], "did you mean --seed?"),
        (["--over"], "--over is not a flag of toy.py"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, argv, says):
    assert run_toy(lambda args: pytest.fail("was run"), argv) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("toy.py: error: ") and says in captured.err


def test_a_command_is_typed_again_with_changes(monkeypatch):
    """Only flags that were typed, in a form that a shell takes apart into the same words."""
    parser = toy()
    parser.add_argument("--units", nargs="+", type=int)
    parser.add_argument("--turn", action=argparse.BooleanOptionalAction)
    argv = ["--load_weight_dir", "my weights", "--units", "3", "4", "--no-turn", "--overwrite"]
    args = parser.parse_args(argv)
    monkeypatch.chdir(ROOT)
    program, script, *words = shlex.split(parser.command(args))
    assert (program, script) == ("python", "toy.py")
    assert parser.parse_args(words) == args and len(words) == len(argv)
    changed = parser.command(args, epochs=5, overwrite=None, load_weight_dir="it's")
    found = parser.parse_args(shlex.split(changed)[2:])
    assert found.given == {"epochs", "load_weight_dir", "units", "turn"}
    assert (found.epochs, found.load_weight_dir, found.units) == (5, "it's", [3, 4])
    assert found.turn is False


def test_a_script_is_named_so_that_it_is_found(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert cli.script_command("eval.py") == "python eval.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "ROOT", "/my code")
    assert cli.script_command("eval.py") == "python '/my code/eval.py'"


def test_what_the_user_typed_is_known_from_what_is_default():
    """Also if a flag is given its default value, or in another spelling."""
    parse = toy().parse_args
    assert parse([]).given == frozenset()
    assert parse(["--epochs", "3"]).given == {"epochs"}
    assert parse(["--epochs=4", "--overwrite", "--load_weight_dir", "x"]).given == {
        "epochs",
        "overwrite",
        "load_weight_dir",
    }
    assert parse(["--epoch", "5"]).epochs == parse(["--epochs", "5"]).epochs == 5
    assert parse([]).seed == 0 and parse([]).overwrite is False


def test_help_keeps_the_docstring_and_shows_every_default(capsys):
    assert run_toy(lambda args: pytest.fail("was run"), ["--help"]) == 0
    shown = capsys.readouterr().out
    assert "    python toy.py   # as it is typed" in shown
    words = " ".join(shown.split())
    assert "size of z (default: 2)" in words
    assert "weights (default: none)" in words and "start again (default: off)" in words
    assert "(default: 1)" in words and "(default: None)" not in words


ENDS = [
    (UserError("a file\nis  wrong"), 2, "toy.py: error: a file is wrong\n"),
    (NotFiniteError("the loss"), 3, "toy.py: error: the loss\n"),
    (Interrupted("interrupted; saved", signal.SIGTERM), 143, "toy.py: interrupted; saved\n"),
    (Interrupted("interrupted", signal.SIGINT), 130, "toy.py: interrupted\n"),
    (KeyboardInterrupt(), 130, "toy.py: interrupted\n"),
    (MemoryError(), 2, "toy.py: error: out of memory: use a smaller --batch, a smaller network"),
    (
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
        2,
        "toy.py: error: out of memory: use a smaller --batch",
    ),
    (
        tf.errors.InternalError(None, None, "libdevice not found at ./libdevice.10.bc"),
        2,
        "toy.py: error: XLA cannot find CUDA's libdevice: run pip install 'tensorflow[and-cuda]'",
    ),
    (
        FileNotFoundError(2, "No such file", "x.npz"),
        2,
        "toy.py: error: x.npz: No such file: check the free disk space and the permissions\n",
    ),
    (BrokenPipeError(32, "Broken pipe"), 141, ""),
    (OSError("odd"), 2, "toy.py: error: odd: check the free disk space"),
    (SystemExit(7), 7, ""),
    (SystemExit("text"), 1, ""),
]


@pytest.mark.parametrize("error, code, line", ENDS, ids=[repr(end[0])[:40] for end in ENDS])
def test_what_goes_wrong_ends_in_a_code_and_one_line(capsys, error, code, line):
    def main(args):
        print("before")
        raise error

    assert run_toy(main) == code
    captured = capsys.readouterr()
    assert captured.out == "before\n" and captured.err.startswith(line)
    assert captured.err.count("\n") == (1 if line else 0)


def test_a_bug_is_no_error_of_the_user():
    def main(args):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_toy(main)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("becomes", [ZeroDivisionError, ValueError, SystemError, OSError])
def test_a_signal_whose_exception_a_library_replaces_is_still_an_interruption(
    capsys, signum, becomes
):
    """As TensorFlow does in the middle of its code."""

    def main(args):
        try:
            signal.raise_signal(signum)
        except BaseException:
            raise becomes from None

    assert run_toy(main) == 128 + signum
    assert capsys.readouterr().err == "toy.py: interrupted\n"


def test_a_user_error_after_a_swallowed_signal_is_still_told(capsys):
    def main(args):
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        raise UserError("a file is wrong")

    assert run_toy(main) == 2
    assert capsys.readouterr().err == "toy.py: error: a file is wrong\n"


def test_a_name_that_the_encoding_lacks_is_printed_with_escapes(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert run_toy(lambda args: print("\u6570\u5b57 \u00e9", flush=True)) == 0
    assert written.getvalue() == b"\\u6570\\u5b57 \xe9\n"


def test_codes_of_success():
    assert run_toy(lambda args: None) == 0
    assert run_toy(lambda args: 4) == 4


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_processes_costs_one_line(capsys, signum):
    before = signal.getsignal(signum)
    assert run_toy(lambda args: os.kill(os.getpid(), signum)) == 128 + signum
    assert capsys.readouterr().err == "toy.py: interrupted\n"
    assert signal.getsignal(signum) is before


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_a_script_that_saves_nothing_goes_on_after_sigusr1():
    """A scheduler sends it to every process of a job; without a handler it ends a process."""
    assert run_toy(lambda args: os.kill(os.getpid(), signal.SIGUSR1)) == 0


def test_a_signal_that_is_ignored_stays_so():
    """As under `nohup`, whose user wants the script to continue."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_toy(lambda args: os.kill(os.getpid(), signal.SIGHUP)) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_script_runs_in_a_thread_where_python_handles_no_signals():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run_toy(lambda args: 4)))
    thread.start()
    thread.join()
    assert codes == [4]


def test_an_error_of_one_kind_alone_is_explained():
    context = cli.error_context(after="; and so", error_type=OtherRunError)
    with pytest.raises(OtherRunError, match=r"^another; and so$"), context:
        raise OtherRunError("another")
    context = cli.error_context(after="; and so", error_type=OtherRunError)
    with pytest.raises(UserError, match=r"^some$"), context:
        raise UserError("some")


def test_an_error_can_be_told_by_the_flag_it_is_about():
    with pytest.raises(UserError) as error, cli.error_context("--data_dir: ", "; and so"):
        raise UserError("no file")
    assert str(error.value) == "--data_dir: no file; and so"


def test_the_environment_names_mnist_and_no_other_data(monkeypatch):
    monkeypatch.setenv("MNIST_DIR", "/there")
    unset = argparse.Namespace(data_dir=None, transpose=None)
    given = argparse.Namespace(data_dir="here", transpose=True)
    for dataset in ("auto", "mnist"):
        assert cli.data_dir(unset, dataset) == "/there"
        assert cli.data_dir(given, dataset) == "here"
    for dataset in ("digits", "fashion_mnist", "kmnist", "custom"):
        assert cli.data_dir(unset, dataset) == "" and cli.data_dir(given, dataset) == "here"
    monkeypatch.delenv("MNIST_DIR")
    assert cli.data_dir(unset, "auto") == ""
    with pytest.raises(UserError, match="--no-transpose is for images in files of your own"):
        cli.data_dir(argparse.Namespace(data_dir=None, transpose=False), "auto")


def test_default_weights_lie_beside_the_scripts_and_typed_ones_where_the_user_is():
    parser = cli.Parser("toy.py", "")
    cli.add_load_weights_flag(parser)
    assert cli.weights_path(parser.parse_args([])) == os.path.join(ROOT, "better_weight")
    typed = parser.parse_args(["--load_weight_dir", "./better_weight"])
    assert cli.weights_path(typed) == "./better_weight"


def test_values_are_shown_as_they_are_typed():
    assert cli.as_typed((512, 256)) == cli.as_typed([512, 256]) == "512 256"
    assert cli.as_typed(0.5) == "0.5" and cli.as_typed(None) == "None"


# With Python's own buffer of the output, which the environment may switch off.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
TOY = """
import sys
from support import cli
parser = lambda: cli.Parser('toy.py', 'a toy')
sys.exit(cli.script(parser)(lambda args: {body})([]))
"""


def toy_process(body, *redirections):
    """Runs a toy script in a process whose streams may be closed."""
    shell = f'exec "$0" -c "$1" {" ".join(redirections)}'
    command = ["sh", "-c", shell, sys.executable, TOY.format(body=body)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("closed", ["0", "1", "2", "12", "012"])
def test_closed_streams_do_not_stop_a_script(tmp_path, closed):
    """What is printed goes nowhere, and no file that is opened takes the place of a stream."""
    path = tmp_path / "written"
    body = (
        f"(print('said'), print('said', file=sys.stderr), open({str(path)!r}, 'w').write('x'))[3:]"
    )
    run = toy_process(body, *(f"{stream}>&-" for stream in closed))
    assert path.read_text() == "x"
    assert "Traceback" not in run.stderr
    assert run.stdout == ("" if "1" in closed else "said\n")
    assert run.stderr == ("" if "2" in closed else "said\n")


@pytest.mark.parametrize("body", ["print('a line\\n' * 100_000)", "print('the end')"])
def test_output_that_nobody_reads_ends_a_script_quietly(body):
    """As under `| head`: in the middle of what a script prints, and when it has printed it all."""
    code = TOY.format(body=f"[print('first', flush=True), sys.stdin.readline(), {body}][3:] or 0")
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=BUFFERED,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout.readline() == "first\n"
        run.stdout.close()
        run.stdin.write("go on\n")
        run.stdin.close()
        said = run.stderr.read()
    assert run.returncode == 128 + signal.SIGPIPE and said == ""


def test_an_error_is_told_even_if_nobody_reads_the_output():
    """A pipe whose reader has ended, and then a missing file."""
    program = TOY.format(body="sys.stdout.write('x') and open('/nowhere')")
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=BUFFERED,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write)
    assert run.returncode == 2
    assert run.stderr.startswith("toy.py: error: /nowhere: No such file or directory")
    assert run.stderr.count("\n") == 1


UNREAD = """
import sys
sys.path.insert(0, {root!r})
from support import cli

def endless(args):
    while True:
        print("a line that nobody reads")

sys.exit(cli.script(lambda: cli.Parser("toy.py", ""))(endless)([]))
"""


@pytest.mark.skipif(os.name != "posix", reason="select works on pipes only on POSIX systems")
def test_a_signal_ends_a_script_whose_output_nobody_reads():
    """Its pipe is full, so it waits in the middle of a write."""
    command = [sys.executable, "-c", UNREAD.format(root=ROOT)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    STARTED.append(process)
    import fcntl
    import termios

    # The pipe is full once it cannot be written to any more, and stays so.
    filled = 0
    while filled < 3:
        time.sleep(0.2)
        size = array.array("i", [0])
        fcntl.ioctl(process.stdout, termios.FIONREAD, size)
        filled = filled + 1 if size[0] > 60_000 else 0
        assert process.poll() is None
    process.terminate()
    assert process.wait(10) == 143


def test_a_path_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME" if os.name == "posix" else "USERPROFILE", "/home/ann")
    assert cli.path("~/logs") == os.path.expanduser("~/logs") == "/home/ann/logs"
    parser = cli.Parser("toy.py", "")
    cli.add_data_flags(parser, "MNIST")
    cli.add_load_weights_flag(parser)
    cli.add_output_flag(parser)
    args = parser.parse_args(["--data_dir=~/a", "--load_weight_dir=~/b", "--output_dir", "~/c"])
    found = args.data_dir, args.load_weight_dir, args.output_dir
    assert found == ("/home/ann/a", "/home/ann/b", "/home/ann/c")


def test_control_characters_in_messages_are_made_visible(capsys):
    def fails(_):
        raise UserError("evil\x1b[2Jname does not exist")

    assert run_toy(fails) == 2
    assert capsys.readouterr().err == "toy.py: error: evil\\x1b[2Jname does not exist\n"
    assert run_toy(fails, ["--evil\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_the_flag_of_a_notebook_gets_a_hint(capsys):
    assert run_toy(lambda _: 0, ["-f", "/tmp/kernel-1.json"]) == 2
    said = capsys.readouterr().err
    assert "-f is not a flag of toy.py: in a notebook, pass the flags as a list" in said


def test_windows_reports_a_closed_pipe_as_an_invalid_argument(monkeypatch, capsys):
    def fails(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    assert run_toy(fails) == 2
    monkeypatch.setattr(cli, "CLOSED_PIPE", (errno.EPIPE, errno.EINVAL))
    capsys.readouterr()
    assert run_toy(fails) == cli.PIPE_CLOSED == 141 and capsys.readouterr().err == ""


def test_a_process_ends_at_once_only_with_tensorflow_and_after_its_output_is_written(monkeypatch):
    class Stream(io.StringIO):
        """Remembers what was written before the last flush."""

        flushed = ""

        def flush(self):
            self.flushed = self.getvalue()

    class Closed(io.StringIO):
        def flush(self):
            raise BrokenPipeError

    ended, out = [], Stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", Closed())
    monkeypatch.setattr(os, "_exit", lambda code: ended.append((code, out.flushed)))
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    out.write("done")
    cli.end_process(130)
    assert ended == [(130, "done")]
    monkeypatch.delitem(sys.modules, "tensorflow")
    with pytest.raises(SystemExit) as stop:
        cli.end_process(2)
    assert stop.value.code == 2 and len(ended) == 1
