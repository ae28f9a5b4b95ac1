"""The report: each panel agrees with the data."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from support.analysis.fitted_prior import Component
from support.display import plots, report
from support.errors import UserError
from tests import pixels

RANDOM = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4, dtype=np.uint8), 30)
# Class k is centred at (10 k, -10 k).
POINTS = RANDOM.normal(size=(120, 2)) + 10 * LABELS[:, None] * np.array([1, -1])
REPORT = report.Report(
    description="120 test images of a test",
    images=RANDOM.integers(0, 256, (120, 784), np.uint8),
    labels=LABELS,
    class_names=(),
    elbo=RANDOM.permutation(120) + 50.0,
    rmse=RANDOM.uniform(0.05, 0.1, 120),
    correct={
        "a linear classifier": (np.arange(120) % 3 > 0).astype(float),
        "the fitted prior": (LABELS != 2).astype(float),
    },
    latent_map=report.LatentMap(POINTS, "a map"),
    kld=np.array([0.1, 3.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]),
    active_units=3,
)


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_the_whole_picture_is_drawn(tmp_path):
    for name, one in (
        ("labels", REPORT),
        ("no labels", dataclasses.replace(REPORT, labels=None, correct={})),
    ):
        path = tmp_path / f"{name}.png"
        report.draw(str(path), one)
        picture = pixels.grey(path)
        height, width = picture.shape
        assert height > 1000 and width > 1000
        # No quarter of it is empty, and nothing is cut off.
        for rows in np.split(picture[: height // 2 * 2], 2):
            for part in np.split(rows[:, : width // 2 * 2], 2, axis=1):
                assert np.mean(part < 200) > 0.002
        edges = picture[0], picture[-1], picture[:, 0], picture[:, -1]
        assert min(edge.min() for edge in edges) == 255


def test_the_map_has_each_class_where_its_points_are(axes):
    report.draw_map(axes, REPORT)
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert set(places) == set("0123")
    for label in range(4):
        expected = np.median(POINTS[label == LABELS], axis=0)
        np.testing.assert_allclose(places[str(label)], expected)
    shown = np.concatenate([part.get_offsets() for part in axes.collections])
    np.testing.assert_allclose(sorted(map(tuple, shown)), sorted(map(tuple, POINTS)))
    assert axes.get_title() == "a map" and not axes.get_xticks().size
    colours = {tuple(part.get_facecolor()[0]) for part in axes.collections}
    assert len(colours) == 4


def test_the_map_of_two_dimensions_has_axes_and_the_prior(axes):
    covariance = np.array([[4.0, 0.0], [0.0, 1.0]])
    component = Component(2, np.array([1.0, 5.0]), covariance)
    latent_map = report.latent_map(POINTS, np.arange(2), "tsne", seed=0)
    assert latent_map.axis_labels == ("mu[0]", "mu[1]")
    latent_map = latent_map._replace(components=[component])
    report.draw_map(axes, dataclasses.replace(REPORT, latent_map=latent_map))
    (ellipse,) = axes.patches
    assert ellipse.get_center() == (1.0, 5.0)
    # Two standard deviations to each side: the variances are 4 and 1.
    outline = ellipse.get_path().transformed(ellipse.get_patch_transform())
    x, y = outline.vertices.T
    assert np.ptp(x) == pytest.approx(8, abs=0.1) and np.ptp(y) == pytest.approx(4, abs=0.1)
    assert axes.get_xlabel() == "mu[0]"


def test_classes_have_their_names(axes):
    named = dataclasses.replace(REPORT, class_names=("ant", "bee", "cat", "dog"))
    report.draw_map(axes, named)
    assert {text.get_text() for text in axes.texts} == {"ant", "bee", "cat", "dog"}
    axes = Figure().add_subplot()
    report.draw_accuracies(axes, named)
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == ["ant", "bee", "cat", "dog"]


def test_bars_are_the_kl_of_active_and_some_inactive_dimensions(axes):
    report.draw_kld(axes, REPORT)
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [3.0, 2.0, 0.1, 0, 0, 0]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1 and colours[0] != colours[3]
    assert axes.get_title() == "3 of 8 latent dimensions are active, 5 inactive"


def test_accuracies_are_shares_of_each_class(axes):
    report.draw_accuracies(axes, REPORT)
    linear, prior = axes.lines
    np.testing.assert_allclose(prior.get_ydata(), [100, 100, 0, 100])
    np.testing.assert_allclose(linear.get_ydata(), [200 / 3] * 4)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [
        "a linear classifier: 66.7 % of all images",
        "the fitted prior: 75.0 % of all images",
    ]


def test_the_histogram_counts_every_image(axes):
    report.draw_histogram(axes, REPORT.elbo, "-ELBO, nats")
    assert sum(bar.get_height() for bar in axes.patches) == 120
    assert axes.get_title() == "Distribution of -ELBO over images, mean 109.5 nats"


def test_few_images_have_few_bars_and_large_points(axes):
    report.draw_histogram(axes, REPORT.elbo[:60], "-ELBO, nats")
    assert len(axes.patches) == 12 and sum(bar.get_height() for bar in axes.patches) == 60
    few, many = Figure().add_subplot(), Figure().add_subplot()
    report.draw_map(few, REPORT)
    crowd = np.tile(POINTS, (21, 1))
    latent_map = report.LatentMap(crowd, "many")
    labels = np.tile(LABELS, 21)
    report.draw_map(many, dataclasses.replace(REPORT, latent_map=latent_map, labels=labels))
    assert few.collections[0].get_sizes()[0] == 100 and many.collections[0].get_sizes()[0] == 20
    # A map without axes fills its place; otherwise both directions have the same scale.
    assert few.get_aspect() == "auto"
    axes = Figure().add_subplot()
    latent_map = report.LatentMap(POINTS, "a plane", ("x", "y"))
    report.draw_map(axes, dataclasses.replace(REPORT, latent_map=latent_map))
    assert axes.get_aspect() == 1


def test_markers_of_two_classifiers_that_agree_are_both_seen(axes):
    both = {name: np.ones(120) for name in REPORT.correct}
    report.draw_accuracies(axes, dataclasses.replace(REPORT, correct=both))
    first, second = axes.lines
    np.testing.assert_allclose(first.get_ydata(), second.get_ydata())
    assert first.get_fillstyle() == "full" and second.get_fillstyle() == "none"
    assert second.get_markersize() > 1.5 * first.get_markersize()


def test_the_ranking_has_the_lowest_elbo_first(axes):
    report.draw_ranking(axes, REPORT)
    page = np.asarray(axes.images[0].get_array())
    order = np.argsort(REPORT.elbo)
    step = plots.SCALE * (28 + plots.GAP)
    for row, which in enumerate((order[:9], order[9:18], order[:-10:-1], order[-10:-19:-1])):
        top = row * (step + plots.LINE)
        for column, image in enumerate(REPORT.images[which]):
            left = column * step
            cell = page[top : top + 56 : 2, left : left + 56 : 2]
            np.testing.assert_array_equal(255 - cell, image.reshape(28, 28))
    captions = [text.get_text() for text in axes.texts if text.get_text().isdigit()]
    assert captions[:9] == [str(50 + number) for number in range(9)]
    assert captions[18:27] == [str(169 - number) for number in range(9)]


def test_t_sne_and_pca_keep_classes_apart(capsys):
    mu = np.hstack([POINTS, RANDOM.normal(size=(120, 3))])
    for method, says in (("tsne", "t-SNE of 120 images"), ("pca", "")):
        latent_map = report.latent_map(mu, np.arange(5), method, seed=0)
        assert says in capsys.readouterr().out
        centres = np.array([latent_map.points[label == LABELS].mean(axis=0) for label in range(4)])
        distances = np.linalg.norm(latent_map.points[:, None] - centres, axis=-1)
        assert np.mean(distances.argmin(axis=1) == LABELS) > 0.95
        assert any(latent_map.axis_labels) == (method == "pca")
        assert "120 images" in latent_map.title and "first" not in latent_map.title
    # Two of 5 dimensions have nearly all of the variance, and the first component captures it.
    assert latent_map.axis_labels[0].startswith("first principal component, 9")
    one = report.latent_map(mu[:, :1], np.arange(1), "tsne", seed=0)
    np.testing.assert_array_equal(one.points[:, 0], mu[:, 0])


def test_a_linear_classifier_predicts_the_labels():
    predicted = report.classify_linearly(POINTS[::2], LABELS[::2], POINTS[1::2])
    assert np.mean(predicted == LABELS[1::2]) > 0.95
    with pytest.raises(UserError, match="at least two classes, but there is only one: leave out"):
        report.classify_linearly(POINTS[:30], LABELS[:30], POINTS)


def test_t_sne_maps_the_first_images_of_many(monkeypatch):
    monkeypatch.setattr(report, "MAPPED", 40)
    latent_map = report.latent_map(np.hstack([POINTS, POINTS]), np.arange(4), "tsne", seed=0)
    assert latent_map.points.shape == (40, 2)
    assert latent_map.title.startswith("t-SNE of mu, the first 40 images")
