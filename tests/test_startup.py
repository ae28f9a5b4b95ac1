"""support/startup.py: TensorFlow starts quietly, whatever the user's settings are."""

import os
import subprocess
import sys

import keras
import pytest

from support import startup
from support.errors import UserError
from support.storage import weights
from tests.helpers import ROOT


@pytest.fixture
def environment(monkeypatch):
    """The variables that TensorFlow reads, without those that this process has set."""
    for name in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    return os.environ


def test_the_environment_asks_for_wide_vectors_and_few_lines(environment):
    startup._set_environment()
    assert environment["XLA_FLAGS"] == "--xla_cpu_prefer_vector_width=512"
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert environment["KERAS_BACKEND"] == "tensorflow"


def test_the_users_own_settings_stay(environment, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    startup._set_environment()
    assert environment["XLA_FLAGS"] == "--xla_other=1 --xla_cpu_prefer_vector_width=512"
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert environment["KERAS_BACKEND"] == "tensorflow"  # this code needs it
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    startup._set_environment()
    assert environment["XLA_FLAGS"] == "--xla_cpu_prefer_vector_width=256"


def test_modules_are_hidden_from_imports_and_come_back(monkeypatch):
    monkeypatch.setattr(startup, "NOT_NEEDED", ("wave", "json"))
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with startup._hidden_modules():
        with pytest.raises(ImportError):
            import wave
        import json  # imported before, so it stays

        assert json.loads("1") == 1
    import wave

    assert wave.open


def test_what_tensorflow_says_is_shown_only_where_it_fails(capfd):
    with startup._stderr_set_aside():
        os.write(2, b"a line about GPUs\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ZeroDivisionError), startup._stderr_set_aside():
        os.write(2, b"a reason\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "a reason\n"
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_an_import_that_fails_is_one_line(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"TensorFlow cannot be imported .*requirements.txt"):
        startup.import_tensorflow()


def test_numbers_are_float32_whatever_keras_was_told(environment):
    keras.config.set_floatx("float16")
    startup.import_tensorflow()
    assert keras.config.floatx() == "float32"


def test_loading_weights_changes_nothing_of_the_process(trained, environment):
    before = dict(environment), os.readlink("/proc/self/fd/2"), keras.config.floatx()
    weights.load(str(trained))
    assert (dict(environment), os.readlink("/proc/self/fd/2"), keras.config.floatx()) == before
    assert None not in sys.modules.values()


STRANGE = '{"floatx": "float16", "backend": "torch", "image_data_format": "channels_first"}'
IMPORTED = """
import sys
from support import startup
startup.import_tensorflow()
import keras
print(keras.config.floatx(), keras.backend.backend(), {"jax", "sklearn"} & set(sys.modules))
"""


def test_a_strange_keras_json_changes_nothing_and_nothing_is_said(tmp_path):
    (tmp_path / "keras.json").write_text(STRANGE)
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0 and run.stderr == ""
    assert run.stdout == "float32 tensorflow set()\n"
