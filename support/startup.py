"""How the scripts start TensorFlow: quietly, and without modules that they do not need.

    startup.import_tensorflow()

This changes the process (environment variables, file descriptors, modules), so it is for scripts
only: loading weights from Python has no such side effects.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from support.errors import UserError

# By default XLA leaves half of an AVX-512 unit idle; with this flag a training step takes 3 % less
# time and gives bit-identical results.
WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
# TensorFlow and Keras import these if they are installed, for features that are not used here. That
# would take a third of a script's start-up time.
NOT_NEEDED = ("jax", "matplotlib", "sklearn")


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

    The block is for what must be done before TensorFlow looks at any device, such as building a
    strategy.

    Raises:
        UserError: they cannot be imported.
    """
    _set_environment()
    with _stderr_set_aside():
        try:
            with _hidden_modules():
                import keras
                import tensorflow  # noqa: F401
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise UserError(
                f"TensorFlow cannot be imported ({why:.300}): run pip install -r requirements.txt, "
                "or free some memory"
            ) from error
        # Regardless of the user's keras.json.
        keras.config.set_floatx("float32")
        yield


def _set_environment() -> None:
    """Sets what TensorFlow, Keras and XLA read while they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    xla_flags = os.environ.get("XLA_FLAGS", "")
    if WIDE_VECTORS.partition("=")[0] not in xla_flags:
        os.environ["XLA_FLAGS"] = f"{xla_flags} {WIDE_VECTORS}".strip()


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
    with tempfile.TemporaryFile() as aside:
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
