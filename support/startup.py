"""How the scripts start TensorFlow: quietly, and without modules that they do not need.

    startup.import_tensorflow()

This changes the process (environment variables, file descriptors, modules), so it is for scripts
only: loading weights from Python has no such side effects.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from support.errors import UserError

# By default XLA leaves half of an AVX-512 unit idle; with this flag a training step takes 3 % less
# time and gives bit-identical results.
WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
# TensorFlow and Keras import these if they are installed, for features that are not used here. That
# would take a third of a script's start-up time.
NOT_NEEDED = ("jax", "matplotlib", "sklearn")
# Exists on Linux if the driver of an NVIDIA GPU is loaded.
NVIDIA_DRIVER = "/proc/driver/nvidia/version"
# Variables of the user; TensorFlow aborts the process if it does not know a flag in them.
FLAG_VARIABLES = ("XLA_FLAGS", "TF_XLA_FLAGS")


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras, and hides their start-up messages.

    Raises:
        UserError: they cannot be imported.
    """
    with quiet_import():
        import tensorflow as tf

        # Listing the devices makes TensorFlow print its messages about missing GPUs now.
        tf.config.list_logical_devices()


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Imports TensorFlow and Keras, and hides stderr until the block ends.

    The block is for what must be done before TensorFlow uses any device, such as building a
    strategy.

    Raises:
        UserError: they cannot be imported.
    """
    hidden_stderr = _hidden_stderr()
    _set_environment()
    with hidden_stderr:
        try:
            with _hidden_modules(), _without_keras_settings():
                import keras
                import tensorflow  # noqa: F401
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise UserError(
                f"TensorFlow cannot be imported ({why:.300}): run pip install -r requirements.txt, "
                "or free some memory"
            ) from error
        keras.config.set_floatx("float32")
        _prepare_gpus()
        yield


def _hidden_stderr() -> contextlib.AbstractContextManager:
    """Returns what hides stderr; nothing if the user has set flags that may abort TensorFlow."""
    hidden = True
    for name in FLAG_VARIABLES:
        # A process that a script of this project has started finds the script's own flag.
        if os.environ.get(name, "") not in ("", WIDE_VECTORS):
            hidden = False
            print(
                f"Notice: {name} is set to {os.environ[name]!r}. If TensorFlow does not know a "
                f"flag in it, it ends this process: then correct or unset {name}.",
                file=sys.stderr,
            )
    return _stderr_set_aside() if hidden else contextlib.nullcontext()


def _set_environment() -> None:
    """Sets what TensorFlow, Keras and XLA read while they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    xla_flags = os.environ.get("XLA_FLAGS", "")
    if WIDE_VECTORS.partition("=")[0] not in xla_flags:
        os.environ["XLA_FLAGS"] = f"{xla_flags} {WIDE_VECTORS}".strip()


@contextlib.contextmanager
def _without_keras_settings() -> Iterator[None]:
    """Keeps Keras from reading the user's keras.json inside the block, and from writing one.

    It could be damaged, be a pipe that nobody writes to, or set another type of numbers.
    """
    before = os.environ.get("KERAS_HOME")
    # A folder that cannot exist.
    os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
    try:
        yield
    finally:
        if before is None:
            del os.environ["KERAS_HOME"]
        else:
            os.environ["KERAS_HOME"] = before


def _prepare_gpus() -> None:
    """Lets TensorFlow take a GPU's memory as it needs it, and hides a GPU without XLA."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    # A notebook may have used the devices already; then they stay as they are.
    with contextlib.suppress(RuntimeError):
        if sys.platform == "darwin":
            # XLA has no compiler for Metal.
            tf.config.set_visible_devices([], "GPU")
        else:
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)


def describe_devices() -> str:
    """Returns what TensorFlow computes on and, if there is a GPU that it does not use, why.

    TensorFlow must have been imported.
    """
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        physical = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in physical]
        names = {detail.get("device_name", "unknown model") for detail in details}
        return f"Running on {len(gpus)} GPU ({', '.join(sorted(names))})."
    if tf.config.list_physical_devices("GPU"):
        return "Running on the CPU: XLA has no compiler for the GPU of this machine."
    if os.path.exists(NVIDIA_DRIVER) or shutil.which("nvidia-smi"):
        if sys.platform == "win32":
            advice = "on Windows it does so only inside WSL 2"
        else:
            advice = "run pip install 'tensorflow[and-cuda]'"
        return (
            f"Running on the CPU. TensorFlow cannot use the NVIDIA GPU of this machine: {advice}."
        )
    return "Running on the CPU."


@contextlib.contextmanager
def _hidden_modules() -> Iterator[None]:
    """Makes imports of `NOT_NEEDED` fail inside the block, unless they were imported before."""
    hidden = [name for name in NOT_NEEDED if name not in sys.modules]
    for name in hidden:
        # None tells Python's import system that there is no such module.
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _stderr_set_aside() -> Iterator[None]:
    """Hides what is written to file descriptor 2, unless the block raises an error.

    C++ code prints TensorFlow's first messages before it reads any log level, so the descriptor
    itself is redirected.
    """
    sys.stderr.flush()
    with _scratch_file() as aside:
        screen = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Exception:
            aside.seek(0)
            os.write(screen, aside.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


def _scratch_file() -> IO[bytes]:
    """Returns a temporary file, or the null device if there is no place for one."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "w+b")
