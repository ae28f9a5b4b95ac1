"""On real MNIST, if MNIST_DIR is set: its formats, the pretrained weights and their model cards."""

import json
import os
import re

import numpy as np
import pytest

import data
import eval as eval_script
from support.display.metrics_table import UNITS
from tests.helpers import ROOT
from tests.slow.fuzz import IDX_FILES

SHA256 = "5a4d4600f9ae243d0ab9ee1ff6d948035e6f85a423fdfacf899262ac3ca6f325"


def test_real_mnist_in_both_formats(mnist_dir, tmp_path):
    for name in IDX_FILES:
        os.symlink(os.path.join(mnist_dir, f"{name}.gz"), tmp_path / f"{name}.gz")
    loaded = data.load("mnist", mnist_dir)
    from_idx = data.load("mnist", str(tmp_path))
    for one, other in zip(loaded[2:5], from_idx[2:5], strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert loaded.name == "mnist" and loaded.sha256 == SHA256
    assert [len(split.images) for split in loaded[2:5]] == [55_000, 5_000, 10_000]
    assert loaded.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert loaded.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


PRETRAINED = [
    os.path.relpath(folder, ROOT)
    for folder, _, files in os.walk(os.path.join(ROOT, "better_weight"))
    if "vae.keras" in files
]


@pytest.mark.parametrize("folder", sorted(PRETRAINED))
def test_pretrained_weights_give_the_figures_of_their_model_card(mnist_dir, tmp_path, folder):
    """All metrics but `nll`, which takes minutes."""
    argv = ["--load_weight_dir", os.path.join(ROOT, folder), "--data_dir", mnist_dir]
    argv += ["--report", "--map", "pca"]
    assert eval_script.main([*argv, "--output_dir", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["dataset"] == "mnist" and metrics["images"] == 10_000 and metrics["comparable"]
    with open(os.path.join(ROOT, folder, "README.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| `(\w+)` \| (-?[\d.]+)", file.read(), re.MULTILINE)
    # The first table is that of the metrics; others in the document repeat their names.
    card = dict(reversed(rows))
    fitted = {"loss_total_fitted", "nll_fitted", "prior_accuracy"}
    without = set() if metrics["prior"] == "fitted" else fitted
    assert set(card) == {*UNITS, "active_units"} - without
    for name, figure in card.items():
        if name in metrics:
            assert metrics[name] == pytest.approx(float(figure), rel=1e-3, abs=1e-5), name
    if folder == "better_weight":
        assert metrics["RMSE"] < 0.12007759 and metrics["probe_accuracy"] > 0.9
