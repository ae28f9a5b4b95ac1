"""support/startup.py: TensorFlow starts quietly, whatever the user's settings are."""

import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

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


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(startup, "NVIDIA_DRIVER", "/nowhere")
    monkeypatch.setattr(startup.shutil, "which", lambda name: None)


def devices(monkeypatch, physical, logical):
    kinds = {"list_physical_devices": physical, "list_logical_devices": logical}
    for name, count in kinds.items():
        found = [tf.config.PhysicalDevice(f"/gpu:{i}", "GPU") for i in range(count)]
        monkeypatch.setattr(tf.config, name, lambda kind, found=found: found)


def test_the_device_in_use_is_described(monkeypatch, no_gpu):
    assert startup.describe_devices() == "Running on the CPU."
    details = {"device_name": "NVIDIA L4"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    devices(monkeypatch, 2, 2)
    assert startup.describe_devices() == "Running on 2 GPU (NVIDIA L4)."
    devices(monkeypatch, 1, 0)
    assert "XLA has no compiler for the GPU" in startup.describe_devices()


@pytest.mark.parametrize(
    "platform, advice", [("linux", "pip install 'tensorflow[and-cuda]'"), ("win32", "WSL 2")]
)
def test_a_gpu_that_tensorflow_cannot_use_is_named_with_the_way_out(
    monkeypatch, no_gpu, platform, advice
):
    monkeypatch.setattr(startup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(startup.sys, "platform", platform)
    found = startup.describe_devices()
    assert "cannot use the NVIDIA GPU" in found and advice in found


def test_memory_of_gpus_grows_and_that_of_a_mac_is_hidden(monkeypatch):
    grown, hidden = [], []
    devices(monkeypatch, 2, 0)
    experimental = tf.config.experimental
    monkeypatch.setattr(experimental, "set_memory_growth", lambda *how: grown.append(how))
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *how: hidden.append(how))
    startup._prepare_gpus()
    assert [how[1] for how in grown] == [True, True] and not hidden
    monkeypatch.setattr(startup.sys, "platform", "darwin")
    startup._prepare_gpus()
    assert hidden == [([], "GPU")] and len(grown) == 2


def test_keras_meets_no_settings_of_the_user_and_leaves_none(monkeypatch):
    for before in ("/somewhere", None):
        if before is None:
            monkeypatch.delenv("KERAS_HOME", raising=False)
        else:
            monkeypatch.setenv("KERAS_HOME", before)
        with startup._without_keras_settings(), pytest.raises(OSError):
            os.makedirs(os.environ["KERAS_HOME"])
        assert os.environ.get("KERAS_HOME") == before


@pytest.mark.parametrize("name", startup.FLAG_VARIABLES)
def test_flags_of_the_user_are_named_since_tensorflow_may_abort_on_them(monkeypatch, capfd, name):
    monkeypatch.setenv(name, "--nonsense=1")
    with startup.quiet_import():
        os.write(2, b"the last words of TensorFlow\n")
    shown = capfd.readouterr().err
    assert f"Notice: {name} is set to '--nonsense=1'" in shown
    assert "the last words of TensorFlow" in shown


def test_without_a_place_for_temporary_files_tensorflow_is_still_quiet(monkeypatch, capfd):
    def fails():
        raise FileNotFoundError("No usable temporary directory")

    monkeypatch.setattr(startup.tempfile, "TemporaryFile", fails)
    with startup._stderr_set_aside():
        os.write(2, b"a line about GPUs\n")
    assert capfd.readouterr().err == ""


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
