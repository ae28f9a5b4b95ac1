"""How the scripts start TensorFlow: quietly, and without what they do not need.

    startup.import_tensorflow()

This changes the process (environment variables, descriptors, modules), so scripts call it and
nothing else does: loading weights from Python has no such side effects.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from support.errors import UserError

# XLA leaves half of an AVX-512 unit idle unless asked: 3 % of a training step. It changes no bit.
WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
# TensorFlow and Keras import these where they find them, for features that are not used here: a
# third of the time that a script takes to start.
NOT_NEEDED = ("jax", "matplotlib", "sklearn")


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras with their start-up lines kept off the screen.

    Raises:
        UserError: they cannot be imported.
    """
    with quiet_import():
        import tensorflow as tf

        # Looking at the devices makes TensorFlow print its lines about absent GPUs now.
        tf.config.list_logical_devices()


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Imports TensorFlow and Keras, and keeps stderr off the screen until the block ends.

    For what must come before TensorFlow has looked at any device, such as a strategy.

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
                f"TensorFlow cannot be imported ({why:.300}): install requirements.txt, or free "
                "some memory"
            ) from error
        # Whatever the user's keras.json says.
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
    """Keeps what is written to descriptor 2 off the screen, unless the block raises.

    TensorFlow's first lines come from C++ before it reads any log level, so the descriptor itself
    is redirected.
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
