"""bench/: the formulas behind the figures, against cases with a known answer."""

import importlib.util
import os

import numpy as np
import pytest
from conftest import ROOT

import model


def bench(name):
    path = os.path.join(ROOT, "bench", f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_frechet_distance_of_gaussians_that_share_their_axes():
    """There it is |m1 - m2|^2 + sum (s1 - s2)^2, in any rotation."""
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(5, 5)))[0]
    m1, m2, s1, s2 = random.random((4, 5))
    c1, c2 = (rotation @ np.diag(s**2) @ rotation.T for s in (s1, s2))
    found = bench("samples").frechet_distance((m1, c1), (m2, c2))
    assert found == pytest.approx(np.sum((m1 - m2) ** 2) + np.sum((s1 - s2) ** 2))
    assert bench("samples").frechet_distance((m1, c1), (m1, c1)) == pytest.approx(0, abs=1e-9)


def test_the_prediction_of_scaling_returns_the_constants_it_was_made_from():
    scaling = bench("scaling")
    one = {"steps": {str(batch): 2e-3 + 1e-5 * batch for batch in (100, 50, 25)}}
    two = {"reductions": {str(size): 4e-4 + 2e-9 * size for size in (4000, 1000000)}}
    found = scaling.fitted(one, two)
    assert found["fixed"] == pytest.approx(2e-3) and found["per_image"] == pytest.approx(1e-5)
    assert found["latency"] == pytest.approx(4e-4) and found["per_byte"] == pytest.approx(2e-9)
    size = found["bytes"]
    assert size == 4 * sum(w.size for w in model.VAE().get_weights())
    expected = 2e-3 + 1e-5 * 50 + 4e-4 + 2e-9 * size
    assert scaling.predicted(found, 2) == pytest.approx(expected)
    # A network slower than the machine's own copying sets the pace; a faster one does not.
    assert scaling.predicted(found, 2, gigabits=1) == pytest.approx(expected + (8e-9 - 2e-9) * size)
    assert scaling.predicted(found, 2, gigabits=100) == pytest.approx(expected)
