"""TensorBoard's projector: what its own server makes of the files."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector import projector_plugin
from werkzeug.test import Client

from support.analysis import latents
from support.display import projector
from tests.analysis.test_latents import own, table_of


def served(folder):
    """A function that returns what TensorBoard's projector answers to a request."""
    provider = SimpleNamespace(list_runs=lambda *_, **__: [])
    context = base_plugin.TBContext(logdir=str(folder), data_provider=provider)
    apps = projector_plugin.ProjectorPlugin(context).get_plugin_apps()

    def answer(route, **query):
        response = Client(apps[route]).get("/", query_string=query)
        assert response.status_code == 200, response.get_data()
        return response.get_data()

    return answer


@pytest.fixture
def table():
    return latents.joined(
        [table_of("train", 3), table_of(), latents.of_own_images([own("a", "b")])]
    )


def test_tensorboard_serves_the_latents_with_labels_and_images(tmp_path, table):
    table.predicted[:] = [0, 1, 7, 7, 1, 0, 0, 1]
    assert projector.write(str(tmp_path), table, ("cat", "dog"), ("ape", "bee")) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(projector.NAMES)
    answer = served(tmp_path)
    (run,) = json.loads(answer("/runs"))
    info = json.loads(answer("/info", run=run))
    assert [one["tensorShape"] for one in info["embeddings"]] == [[8, 3]]
    mu = np.frombuffer(answer("/tensor", run=run, name="mu"), np.float32)
    np.testing.assert_array_equal(mu.reshape(8, 3), table.mu)
    lines = answer("/metadata", run=run, name="mu").decode().splitlines()
    assert lines[0].split("\t") == ["label", "predicted", "-ELBO", "image"]
    rows = [line.split("\t") for line in lines[1:]]
    labels = ["cat", "255", "7", "cat", "255", "7", "3", "your image"]
    assert [row[0] for row in rows] == labels
    assert [row[1] for row in rows] == ["ape", "bee", "7", "7", "bee", "ape", "ape", "bee"]
    assert [row[2] for row in rows] == [f"{v:.2f}" for v in table.metrics["loss_total"]]
    positions = [*(f"train {n}" for n in range(3)), *(f"test {n}" for n in range(4)), "b"]
    assert [row[3] for row in rows] == positions
    sprite = np.asarray(Image.open(io.BytesIO(answer("/sprite_image", run=run, name="mu"))))
    assert sprite.shape == (3 * 28, 3 * 28, 2)
    for number, image in enumerate(table.images):
        top, left = 28 * (number // 3), 28 * (number % 3)
        tile = sprite[top : top + 28, left : left + 28]
        np.testing.assert_array_equal(tile[..., 0], 255 - image.reshape(28, 28))


def test_the_paper_ends_near_the_ink(tmp_path, table):
    table.images[:] = 0
    table.images.reshape(-1, 28, 28)[0, 10, 20] = 200
    table.images.reshape(-1, 28, 28)[0, 2, 2] = 5
    projector.write(str(tmp_path), table, (), ())
    opacity = np.asarray(Image.open(tmp_path / projector.SPRITE))[..., 1]
    expected = np.zeros_like(opacity)
    expected[8:13, 18:23] = 255
    np.testing.assert_array_equal(opacity, expected)


def test_no_cell_breaks_the_table_and_what_is_not_there_is_left_out(tmp_path):
    table = latents.joined(
        [
            table_of(labels=False, classes=False),
            table_of(labels=False, classes=False),
        ]
    )
    projector.write(str(tmp_path), table, (), ())
    assert (tmp_path / projector.METADATA).read_text().startswith("-ELBO\timage\n")
    table = table_of(count=1)
    table.labels[:] = 0
    projector.write(str(tmp_path), table, ("a\tb\nc",), ())
    lines = (tmp_path / projector.METADATA).read_text().splitlines()
    assert len(lines) == 2 and lines[1].split("\t")[0] == "a\\tb\\nc"


def test_only_as_many_images_as_fit_into_the_sprite_image(tmp_path, table, monkeypatch):
    assert projector.MOST_IMAGES == 292**2  # 292 * 28 = 8176 pixels
    monkeypatch.setattr(projector, "MOST_IMAGES", 4)
    assert projector.write(str(tmp_path), table, (), ()) == 4
    answer = served(tmp_path)
    assert len(answer("/tensor", run=".", name="mu")) == 4 * 3 * 4
    assert len(answer("/metadata", run=".", name="mu").decode().splitlines()) == 5
    assert Image.open(tmp_path / projector.SPRITE).size == (56, 56)
