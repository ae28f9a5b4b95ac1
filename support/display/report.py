"""What `eval.py --report` draws: one picture with five panels on the latent space and the -ELBO.

    points = report.latent_map(mu, active, "tsne", seed=0)
    report.draw("report.png", report.Report(...))

Also a linear classifier of mu, the usual way to probe what information a representation holds.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.display import plots
from support.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from support.analysis.fitted_prior import Component

# Images that t-SNE maps: enough to fill the picture.
MAPPED = 2500
# With these, t-SNE takes a third of the time that it takes with scikit-learn's defaults (1,000 and
# 0.5), and as many neighbours remain neighbours (trustworthiness 0.939 instead of 0.940).
TSNE_ITERATIONS, TSNE_ANGLE = 400, 1.0
# At each end of the ranking by -ELBO: images per row, and rows.
RANKED_COLUMNS, RANKED_ROWS = 9, 2
# Inactive dimensions that are shown in addition to the active ones.
INACTIVE_SHOWN = 3
DIGITS = 10
# The smallest and the largest area of a point of the map, in square points.
MARKER_AREAS = 20, 100
# Images per bar of a histogram, on average, and the numbers of bars.
IMAGES_PER_BAR, LEAST_BARS, MOST_BARS = 5, 10, 80


class LatentMap(NamedTuple):
    """A map of mu in two dimensions.

    Attributes:
        points: the positions of the first m images, (m, 2).
        title: the title of the map.
        axis_labels: the labels of x and y; empty if distances along the axes have no meaning.
        components: the Gaussians of the fitted prior to draw, if z has two dimensions.
    """

    points: NDArray[np.floating]
    title: str
    axis_labels: tuple[str, str] = ("", "")
    components: Sequence["Component"] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """What the picture shows of n images.

    Attributes:
        description: what the images are, for the title.
        images: uint8 (n, 784).
        labels: uint8 (n,); None if there are none.
        class_names: the names of the labels; empty for digits.
        elbo: -ELBO of each image, nats, (n,).
        rmse: RMSE_mean of each image, (n,).
        correct: whether each image was classified correctly, (n,) by the name of the classifier.
        latent_map: the map of the images.
        kld: mean KL of each latent dimension, nats, (latent_dim,).
        active_units: how many latent dimensions are active.
    """

    description: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None
    class_names: Sequence[str]
    elbo: NDArray[np.floating]
    rmse: NDArray[np.floating]
    correct: Mapping[str, NDArray[np.floating]]
    latent_map: LatentMap
    kld: NDArray[np.floating]
    active_units: int

    def name(self, label: int) -> str:
        """Returns the name of a class."""
        return class_name(label, self.class_names)


def class_name(label: int, class_names: Sequence[str]) -> str:
    """Returns the name of a class, or its number if it has no name."""
    return class_names[label] if label < len(class_names) else str(label)


def classify_linearly(
    training_mu: NDArray[np.floating],
    training_labels: NDArray[np.uint8],
    mu: NDArray[np.floating],
) -> NDArray[np.uint8]:
    """Classifies images by multinomial logistic regression on mu.

    The penalty is scikit-learn's default. mu is not scaled, so that inactive dimensions stay small.

    Args:
        training_mu: mu of the images to fit to, (m, latent_dim).
        training_labels: their labels, (m,).
        mu: mu of the images to classify, (n, latent_dim).

    Returns:
        The predicted labels, (n,).

    Raises:
        UserError: all training images have the same label.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(training_labels)) < 2:
        raise UserError(
            "--report needs training images of at least two classes, but there is only one: leave "
            "out the flag"
        )
    return LogisticRegression(max_iter=1000).fit(training_mu, training_labels).predict(mu)


def latent_map(
    mu: NDArray[np.floating], active: NDArray[np.int64], method: str, seed: int
) -> LatentMap:
    """Maps images to two dimensions by their mu.

    Args:
        mu: (n, latent_dim).
        active: the active latent dimensions.
        method: `pca`, the two directions with the largest variance, or `tsne`, which keeps
            neighbours together (van der Maaten and Hinton, "Visualizing Data using t-SNE", 2008).
        seed: seed of t-SNE.

    Returns:
        The map; if mu has only one or two dimensions, mu itself.
    """
    if mu.shape[1] == 2:
        return LatentMap(mu, f"mu of all {len(mu):,} images", ("mu[0]", "mu[1]"))
    if mu.shape[1] == 1:
        points = np.hstack([mu, np.zeros_like(mu)])
        return LatentMap(points, f"mu of all {len(mu):,} images", ("mu[0]", ""))
    if method == "tsne" and len(active) > 2:
        which = f"{len(mu):,}"
        if len(mu) > MAPPED:
            which = f"the first {MAPPED:,}"
        title = f"t-SNE of mu, {which} images: similar images are close together"
        return LatentMap(_tsne(mu[:MAPPED, active], seed), title)
    return _pca(mu)


def _tsne(mu: NDArray[np.floating], seed: int) -> NDArray[np.floating]:
    """Returns positions (n, 2) that keep neighbours in mu (n, active units) together."""
    from sklearn.manifold import TSNE

    print(
        f"Computing the map, t-SNE of {len(mu):,} images; on a busy machine this takes a minute "
        "(--map pca: a second) ...",
        flush=True,
    )
    tsne = TSNE(
        2,
        init="pca",
        perplexity=min(30, (len(mu) - 1) / 3),
        max_iter=TSNE_ITERATIONS,
        angle=TSNE_ANGLE,
        random_state=seed,
        n_jobs=2,
    )
    return tsne.fit_transform(mu)


def _pca(mu: NDArray[np.floating]) -> LatentMap:
    """Returns the map of mu (n, latent_dim) on the two directions with the largest variance."""
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(mu)
    first, second = 100 * pca.explained_variance_ratio_
    labels = (
        f"first principal component, {first:.0f} % of the variance",
        f"second principal component, {second:.0f} %",
    )
    return LatentMap(pca.transform(mu), f"Principal components of mu, {len(mu):,} images", labels)


def draw(path: str, report: Report) -> None:
    """Draws the picture and writes it to the PNG `path`."""
    with plots.figure(path, (14, 12.5), layout="constrained") as figure:
        figure.suptitle(f"Latent space and -ELBO of {report.description}", fontsize=14)
        grid = figure.add_gridspec(3, 2, width_ratios=(5, 4))
        draw_map(figure.add_subplot(grid[:2, 0]), report)
        draw_kld(figure.add_subplot(grid[0, 1]), report)
        axes = figure.add_subplot(grid[1, 1])
        if report.correct:
            draw_accuracies(axes, report)
        else:
            # Without labels there are no classes to predict.
            draw_histogram(axes, report.rmse, "RMSE_mean")
        draw_histogram(figure.add_subplot(grid[2, 0]), report.elbo, "-ELBO, nats")
        draw_ranking(figure.add_subplot(grid[2, 1]), report)


def draw_map(axes: "Axes", report: Report) -> None:
    """Draws the map: each image as its digit, and the name of each class at its median."""
    from matplotlib import patheffects

    latent = report.latent_map
    points = latent.points
    outline = [patheffects.withStroke(linewidth=3, foreground="white")]
    labels = np.full(len(points), DIGITS) if report.labels is None else report.labels
    labels = labels[: len(points)]
    # Few points are drawn larger.
    size = np.clip(50_000 / len(points), *MARKER_AREAS)
    for label in np.unique(labels).tolist():
        of_class = points[labels == label]
        # A digit is its own marker, so that classes differ without colour, too.
        marker = f"${label}$" if label < DIGITS and not report.class_names else "."
        x, y = of_class.T
        axes.scatter(x, y, s=size, marker=marker, color=_colour(label), linewidths=0)
        if report.labels is not None and label < max(DIGITS, len(report.class_names)):
            middle_x, middle_y = np.median(of_class, axis=0).tolist()
            name = axes.text(
                middle_x, middle_y, report.name(label), color=_colour(label), fontsize=20
            )
            name.set(path_effects=outline, ha="center", va="center", weight="bold")
    for component in latent.components:
        _draw_ellipse(axes, component)
    axes.set_title(latent.title)
    axes.set(xlabel=latent.axis_labels[0], ylabel=latent.axis_labels[1])
    if any(latent.axis_labels):
        axes.set_aspect("equal", adjustable="datalim")
    else:
        # Only neighbourhoods have a meaning, so the map may fill its place.
        axes.set(xticks=[], yticks=[], frame_on=False)
        axes.margins(0.01)


def _colour(label: int) -> str:
    """Returns the colour of a class; all classes after the tenth are grey."""
    return plots.CLASS_COLOURS[label] if label < DIGITS else plots.GREY


def _draw_ellipse(axes: "Axes", component: "Component") -> None:
    """Draws a two-dimensional Gaussian as an ellipse at two standard deviations."""
    from matplotlib import patches

    variances, directions = np.linalg.eigh(component.covariance)
    width, height = 4 * np.sqrt(variances)
    ellipse = patches.Ellipse(
        tuple(component.mean),
        width,
        height,
        angle=np.degrees(np.arctan2(directions[1, 0], directions[0, 0])),
        fill=False,
        color=_colour(component.label),
        linewidth=0.8,
    )
    axes.add_patch(ellipse)


def draw_kld(axes: "Axes", report: Report) -> None:
    """Draws the KL of the active latent dimensions, and of a few more, in descending order."""
    shown = np.sort(report.kld)[::-1][: report.active_units + INACTIVE_SHOWN]
    numbers = np.arange(1, len(shown) + 1)
    is_active = numbers <= report.active_units
    axes.bar(numbers, shown, color=np.where(is_active, plots.INK, plots.ACCENT).tolist())
    axes.set_xticks(numbers[:: max(1, len(shown) // 10)])
    axes.set(xlabel="latent dimensions in descending order of KL", ylabel="mean KL, nats")
    active, total = report.active_units, len(report.kld)
    axes.set_title(f"{active} of {total} latent dimensions are active, {total - active} inactive")


def draw_accuracies(axes: "Axes", report: Report) -> None:
    """Draws the percentage of each class that each classifier classifies correctly."""
    assert report.labels is not None, "nothing is correct without labels"
    classes = np.unique(report.labels)
    names = [report.name(label) for label in classes.tolist()]
    # The second marker surrounds the first where both classifiers are as good.
    markers = (("o", plots.INK, "full"), ("s", plots.ACCENT, "none"))
    for (classifier, correct), (marker, colour, fill) in zip(
        report.correct.items(), markers, strict=False
    ):
        shares = [100 * correct[report.labels == label].mean() for label in classes]
        legend = f"{classifier}: {100 * correct.mean():.1f} % of all images"
        axes.plot(
            *(names, shares, marker),
            color=colour,
            fillstyle=fill,
            markersize=6 if fill == "full" else 10,
            markeredgewidth=1.5,
            label=legend,
        )
    if max(map(len, names)) > 2:
        axes.tick_params("x", rotation=30)
    axes.set(xlabel="class", ylabel="classified correctly, %")
    axes.set_title("Classes predicted from mu")
    axes.legend(loc="lower left")
    # Space for the legend below the lowest point.
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.35 * (high - low), high)


def draw_histogram(axes: "Axes", values: NDArray[np.floating], name: str) -> None:
    """Draws the distribution of a metric over the images."""
    bars = np.clip(len(values) // IMAGES_PER_BAR, LEAST_BARS, MOST_BARS)
    axes.hist(values, bins=int(bars), color=plots.INK)
    axes.set(xlabel=name, ylabel="images")
    quantity, _, unit = name.partition(", ")
    mean = f"{values.mean():.1f} {unit}" if unit else f"{values.mean():.3f}"
    axes.set_title(f"Distribution of {quantity} over images, mean {mean}")


def draw_ranking(axes: "Axes", report: Report) -> None:
    """Draws the images with the lowest and with the highest -ELBO."""
    order = np.argsort(report.elbo, kind="stable")
    rows = []
    for name, ranked in (("lowest", order), ("highest", order[::-1])):
        for number in range(RANKED_ROWS):
            which = ranked[number * RANKED_COLUMNS : (number + 1) * RANKED_COLUMNS]
            if len(which):
                captions = [f"{value:.0f}" for value in report.elbo[which]]
                rows.append(plots.Row(name, report.images[which], captions))
    plots.show(axes, rows)
    axes.set_title("Images with the lowest and highest -ELBO, in nats")
