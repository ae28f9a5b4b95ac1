"""The documents: their code blocks run, and the README's commands are those of CI."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from support.analysis import fitted_prior
from support.storage import weights
from tests.helpers import ROOT


def text_of(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


DOCUMENTS = text_of("README.md") + text_of("support", "README.md")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENTS, re.DOTALL)
# Code that needs this repository, and code that takes the weights elsewhere.
HERE = [block for block in BLOCKS if "from support" in block or "import data" in block]
ELSEWHERE = [block for block in BLOCKS if block not in HERE]


def run_block(code, folder, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_documents_have_code_for_both():
    assert HERE and ELSEWHERE


@pytest.mark.parametrize("block", range(len(HERE)))
def test_code_that_uses_this_repository_runs(block):
    printed = run_block(HERE[block], ROOT)
    assert "(10, 128)" in printed and "(10, 784)" in printed


@pytest.mark.parametrize("backend", [pytest.param("tensorflow", marks=pytest.mark.slow), "numpy"])
@pytest.mark.parametrize("block", range(len(ELSEWHERE)))
def test_code_that_takes_the_weights_runs_without_this_repository(tmp_path, block, backend):
    (tmp_path / "better_weight").mkdir()
    for name in ("vae.keras", "mnist_test_100.npz"):
        shutil.copy(os.path.join(ROOT, "better_weight", name), tmp_path / "better_weight")
    printed = run_block(ELSEWHERE[block], tmp_path, KERAS_BACKEND=backend)
    assert "(10, 128)" in printed and "(10, 784)" in printed


def test_code_that_takes_the_weights_reconstructs_and_samples_as_this_repository_does(monkeypatch):
    """The same code for more samples; z has the moments of the fitted prior."""
    (code,) = ELSEWHERE
    monkeypatch.chdir(ROOT)
    more = code.replace("size=10", "size=4000").replace("(10, 128)", "(4000, 128)")
    assert more.count("4000") == 3
    result = {}
    exec(more, result)
    vae, _ = weights.load("better_weight")
    prior = weights.read("better_weight").prior
    mu, log_var = vae.encode(result["images"].reshape(10, 784) / np.float32(255))
    np.testing.assert_allclose(result["q"]["mu"], mu, atol=1e-4)
    np.testing.assert_allclose(result["q"]["log_var"], log_var, atol=1e-4)
    expected = tf.sigmoid(vae.decode(mu))
    np.testing.assert_allclose(result["reconstructions"], expected, atol=1e-4)
    z, labels = result["z"], prior.labels[result["component"]]
    np.testing.assert_allclose(result["digits"], tf.sigmoid(vae.decode(z)), atol=1e-4)
    predicted, _ = fitted_prior.Mixture(prior).classify(z)
    assert np.mean(predicted == labels) > 0.95
    mean = prior.weights @ prior.means
    centred = prior.means - mean
    covariance = np.einsum("m,mij->ij", prior.weights, prior.covariances)
    covariance += np.einsum("m,mi,mj->ij", prior.weights, centred, centred)
    of_active = z[:, prior.active]
    np.testing.assert_allclose(of_active.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(of_active.T), covariance, atol=0.15)
    others = np.delete(z, prior.active, axis=1)
    np.testing.assert_allclose(others.std(axis=0), 1, atol=0.06)


def test_ci_gives_the_readmes_test_command():
    command = re.search(r"^.*-m pytest.*$", text_of("README.md"), re.MULTILINE)[0]
    command = re.search(r"\S*python\S* -m pytest.*", command)[0].strip(" `")
    assert "slow" not in command
    assert command in text_of(".ci", "run")


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)", text_of("README.md"))
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert len(local) > 3
    for link in local:
        assert os.path.exists(os.path.join(ROOT, link)), link


def test_every_test_that_the_table_of_faults_names_exists():
    text = text_of("tests", "README.md")
    named = set(re.findall(r"\btest_\w+\b(?!\.py)", text))
    written = set()
    for folder, _, names in os.walk(os.path.join(ROOT, "tests")):
        for name in names:
            if name.endswith(".py"):
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                written.update(re.findall(r"def (test_\w+)", text_of(path)))
    assert len(named) > 30
    assert named - written == set()


def test_flags_that_the_documents_name_exist():
    """In the README's commands; otherwise readers would be the first to notice a renamed flag."""
    import eval as eval_script
    import eval_genresult
    import train

    parsers = {"train": train, "eval": eval_script, "eval_genresult": eval_genresult}
    commands = re.findall(r"python (\w+)\.py([^\n`|]*)", text_of("README.md"))
    named = [
        (script, flag)
        for script, rest in commands
        if script in parsers
        for flag in re.findall(r"--\w+", rest.partition("#")[0])
    ]
    assert len(named) > 5
    for script, flag in named:
        assert flag == "--help" or flag in parsers[script].parser()._option_string_actions, flag
