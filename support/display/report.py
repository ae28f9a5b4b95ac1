"""What `eval.py --report` draws: one picture of the latent space, four panels with a sentence each.

    points, axes = report.flattened(mu, active, "tsne", seed=0)
    report.draw("report.png", "10,000 test images of mnist", ...)

And what names digits from mu with the help of labels: a linear classifier.
"""

import numpy as np

from support import UserError, pictures

# t-SNE takes half a minute for so many points.
MAPPED = 5000
CLASSIFIERS = {"probe_accuracy": "a linear classifier", "prior_accuracy": "the fitted prior"}
# Digits at each end of the -ELBO.
ENDS = 8


def probed(known, labels, mu):
    """Returns the digits that a linear classifier names from mu, (n,).

    Multinomial logistic regression with scikit-learn's default penalty, on mu as it is: unscaled,
    a dimension that holds nothing stays small.

    Args:
        known, labels: mu of the training images and their labels, to fit.
        mu: (n, latent_dim), to name.
    """
    from sklearn.linear_model import LogisticRegression

    if len(set(labels.tolist())) < 2:
        raise UserError("--report needs labels of two digits at least: drop the flag")
    return LogisticRegression(max_iter=1000).fit(known, labels).predict(mu)


def flattened(mu, active, how, seed):
    """Lays the first images out in two dimensions.

    Args:
        mu: (n, latent_dim).
        active: the latent dimensions that hold something, ascending.
        how: `pca`, the two directions of largest variance, or `tsne`, which keeps neighbours
            together (van der Maaten and Hinton, "Visualizing Data using t-SNE", 2008).
        seed: of t-SNE.

    Returns:
        (`MAPPED` at most, 2), and the names of the two axes; mu itself where it has two dimensions.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if mu.shape[1] == 2:
        return mu, ("mu[0]", "mu[1]")
    if how == "tsne" and len(active) > 2:
        print("Laying out mu by t-SNE, up to a minute (--map pca is quicker) ...", flush=True)
        mu = mu[:MAPPED, active]
        near = min(30, (len(mu) - 1) / 3)
        tsne = TSNE(2, init="pca", perplexity=near, random_state=seed, n_jobs=2)
        return tsne.fit_transform(mu), ("t-SNE: neighbours stay neighbours", "distances say little")
    if mu.shape[1] == 1:
        return np.hstack([mu, 0 * mu]), ("mu[0]", "")
    pca = PCA(2, svd_solver="full").fit(mu)
    shares = 100 * pca.explained_variance_ratio_
    names = [f"principal component {i + 1}, {shares[i]:.0f} % of the variance" for i in range(2)]
    return pca.transform(mu), names


def draw(path, of, images, labels, figures, points, axes_names, gaussians, kld, active):
    """Draws the picture.

    Args:
        path: the PNG to write.
        of: what the images are.
        images, labels: uint8 (n, 784) and (n,).
        figures: of the images, (n,) each, by the names in eval.py's table.
        points: (m, 2), as `flattened` returns them with `axes_names`, of the first images.
        gaussians: of the fitted prior where z has two dimensions; else none.
        kld: mean KL of each latent dimension, nats, (latent_dim,).
        active: the dimensions that are.
    """
    elbo = figures["loss_total"]
    accuracies = {name: figures[key] for key, name in CLASSIFIERS.items() if key in figures}
    with pictures.figure_of(path, (11, 10)) as figure:
        figure.suptitle(f"A closer look at {of}", fontsize=12)
        grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 1), width_ratios=(5, 4))
        axes = figure.add_subplot(grid[:2, 0])
        latent_map(axes, points, labels[: len(points)], gaussians)
        axes.set(xlabel=axes_names[0], ylabel=axes_names[1])
        what = "mu of the first" if len(points) < len(labels) else "mu of all"
        axes.set_title(f"Where the encoder puts digits: {what} {len(points):,} images")
        bars(figure.add_subplot(grid[0, 1]), np.sort(kld)[::-1], len(active))
        per_digit(figure.add_subplot(grid[1, 1]), labels, accuracies)
        axes = figure.add_subplot(grid[2, 0])
        axes.hist(elbo, bins=80, color=pictures.INK)
        axes.set(xlabel="-ELBO, nats", ylabel="images")
        axes.set_title(f"What an image costs: {elbo.mean():.1f} nats on average")
        order, rows = np.argsort(elbo, kind="stable"), []
        for name, which in (("cheapest", order[:ENDS]), ("dearest", order[::-1][:ENDS])):
            rows.append((name, images[which], [f"{value:.0f}" for value in elbo[which]]))
        axes = figure.add_subplot(grid[2, 1])
        pictures.show(axes, rows)
        axes.set_title("The ends of that, with their nats")


def latent_map(axes, points, labels, gaussians):
    """Draws points (n, 2), coloured by the digit in `labels` and named at each digit's median.

    Points of a label above 9 are grey dots.

    Args:
        gaussians: tuples (digit, mean (2,), covariance (2, 2)), each drawn as the ellipse of two
            standard deviations.
    """
    from matplotlib import patches, patheffects

    # Custom data may have labels that are no digits.
    axes.scatter(*points[labels > 9].T, s=4, marker=".", color="#BBBBBB", linewidths=0)
    outline = [patheffects.withStroke(linewidth=3, foreground="white")]
    for digit in np.unique(labels[labels <= 9]):
        place, colour = points[labels == digit], pictures.DIGIT_COLOURS[digit]
        # The digit itself as marker: told apart without colour, too.
        axes.scatter(*place.T, s=16, marker=f"${digit}$", color=colour, linewidths=0)
        name = axes.text(*np.median(place, axis=0), str(digit), color=colour, fontsize=16)
        name.set(path_effects=outline, ha="center", va="center", weight="bold")
    for digit, mean, covariance in gaussians:
        variances, directions = np.linalg.eigh(covariance)
        across, along = 4 * np.sqrt(variances)
        angle = np.degrees(np.arctan2(directions[1, 0], directions[0, 0]))
        colour = pictures.DIGIT_COLOURS[digit] if digit < 10 else "#BBBBBB"
        look = {"fill": False, "color": colour, "linewidth": 0.8}
        axes.add_patch(patches.Ellipse(mean, across, along, angle=angle, **look))
    axes.set_aspect("equal", adjustable="datalim")


def bars(axes, kld, active):
    """Draws the KL of the active latent dimensions and of a few more; `kld` is sorted."""
    shown = kld[: active + 3]
    colours = [pictures.INK] * active + [pictures.ACCENT] * 3
    axes.bar(np.arange(1, len(shown) + 1), shown, color=colours[: len(shown)])
    axes.set_xticks(np.arange(1, len(shown) + 1, max(1, len(shown) // 10)))
    axes.set(xlabel="latent dimension, by KL", ylabel="KL, nats")
    axes.set_title(f"{active} of {len(kld)} dimensions are active, {len(kld) - active} shut")


def per_digit(axes, labels, accuracies):
    """Draws how many of each digit each classifier names right."""
    digits = np.unique(labels)
    looks = {"marker": "o", "color": pictures.INK}, {"marker": "s", "color": pictures.ACCENT}
    for (name, right), look in zip(accuracies.items(), looks, strict=False):
        shares = [100 * right[labels == digit].mean() for digit in digits]
        label = f"{name}: {100 * right.mean():.1f} %"
        axes.plot(digits.astype(str), shares, linestyle="none", label=label, **look)
    axes.set(xlabel="digit", ylabel="named right, %")
    axes.set_title("Digits named from mu")
    axes.legend(fontsize=8)
