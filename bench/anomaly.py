"""Measures what the -ELBO is worth as an anomaly score: AUROC of MNIST against other images.

    python -m bench.anomaly                                  # the pretrained weights
    python -m bench.anomaly --left_out --epochs 3 --seeds 2  # one digit left out of training

AUROC is the probability that an image that is not MNIST's has a higher score than a test image of
MNIST: 0.5 is chance, 1 perfect, and below 0.5 the images seem more normal than MNIST's own. The
standard error is that of Hanley and McNeil (1982), over images. Three scores: loss_total (-ELBO),
loss_total_fitted (-ELBO under the fitted prior) and RMSE.

--left_out is the field's usual test: a model is trained on nine digits (train.py --digits), and
the test images of the tenth are to be found among those of the nine. It trains ten runs for each
seed, into --output_dir/left_out, where a second call finds them. Writes anomaly.json and, for the
other images, anomaly.png to --output_dir.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import charts, common
from support import analysis, cli, datasets, files, startup, storage
from support.datasets.types import Dataset
from support.errors import UserError

if TYPE_CHECKING:
    from support.storage.validation import Weights

SCORES = ("loss_total", "loss_total_fitted", "RMSE")
DIGITS = 10
SIGMAS = (0.05, 0.1, 0.3)
SILHOUETTES = 1000
# How many images of each kind anomaly.png shows.
SHOWN = 100


class Auroc(NamedTuple):
    """An AUROC, and its standard error (None for a single image)."""

    value: float
    standard_error: float | None


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.anomaly", __doc__)
    cli.add_seed_flag(parser)
    cli.add_load_weights_flag(parser)
    parser.add_argument(
        "--fashion",
        metavar="PATH",
        help="Fashion-MNIST, to compare with its test images, too (default: none)",
    )
    group = parser.add_argument_group("one digit left out of training")
    group.add_argument(
        "--left_out", action="store_true", help="train the ten runs instead of --load_weight_dir"
    )
    group.add_argument(
        "--epochs", type=cli.integer(1), default=5, metavar="N", help="epochs of each run"
    )
    group.add_argument(
        "--seeds", type=cli.integer(1), default=1, metavar="N", help="runs of each digit"
    )
    group.add_argument(
        "--latent_dim", type=cli.integer(1), default=128, metavar="N", help="size of z"
    )
    cli.add_data_flags(parser, "MNIST")
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Weights -> scores of test images and of others -> AUROC -> table and anomaly.json."""
    if args.dataset not in ("auto", "mnist"):
        raise UserError(f"--dataset {args.dataset}: this benchmark is for MNIST: leave it out")
    args.dataset = "mnist"
    weights_path = cli.weights_path(args)
    found = None if args.left_out else storage.weights.read(weights_path)
    dataset = common.load_data(args)
    files.writable_folder(args.output_dir)
    startup.import_tensorflow()
    if found is None:
        results = left_out(dataset, args)
        print_table("the digit that was left out", results)
        print_table("mean over the digits", mean_over_digits(results))
    else:
        others = other_images(dataset, args)
        results = compared(scorer(found, args.seed), dataset.test.images, others)
        print_table(f"other images against the test images of MNIST, {weights_path}", results)
        with files.disk_errors(args.output_dir):
            charts.mosaics(os.path.join(args.output_dir, "anomaly.png"), shown(others))
    content = {"seed": args.seed, "left_out": args.left_out, "results": as_json(results)}
    if args.left_out:
        content |= {"epochs": args.epochs, "seeds": args.seeds, "latent_dim": args.latent_dim}
    with files.disk_errors(args.output_dir):
        files.write_json(os.path.join(args.output_dir, "anomaly.json"), content)


# Images and scores ----------------------------------------------------------------------------


def other_images(dataset: Dataset, args: argparse.Namespace) -> dict[str, NDArray[np.uint8]]:
    """Returns images that are not MNIST's, uint8 (n, 784) by name."""
    import string

    from bench import unlike_mnist

    test = dataset.test.images
    others = {
        "rotated by 90 degrees": unlike_mnist.rotated(test, 1),
        "rotated by 180 degrees": unlike_mnist.rotated(test, 2),
    }
    for sigma in SIGMAS:
        others[f"Gaussian noise, sigma {sigma:g}"] = unlike_mnist.noisy(test, sigma, args.seed)
    others |= {
        "uniform noise": common.random_images(1000, args.seed),
        "lower half erased": unlike_mnist.upper_halves(test),
        "blank (black)": unlike_mnist.constant([0]),
        "even greys, 1 to 255": unlike_mnist.constant(range(1, 256)),
        "printed letters": unlike_mnist.printed(unlike_mnist.LETTERS),
        "printed digits": unlike_mnist.printed(string.digits),
        "silhouettes of clothes": unlike_mnist.clothing(SILHOUETTES, args.seed),
        "scikit-learn's digits": datasets.sklearn_digits.load()[0],
    }
    if args.fashion:
        import data

        with cli.error_context("--fashion: "):
            fashion = data.load("fashion_mnist", args.fashion)
        others["Fashion-MNIST"] = fashion.test.images
    return others


# The scores of n images by the names in `SCORES`, float (n,), and a function of images,
# uint8 (n, 784), that returns them.
Scores = dict[str, NDArray[np.floating]]
Scorer = Callable[[NDArray[np.uint8]], Scores]


def scorer(found: Weights, seed: int) -> Scorer:
    """Returns the function that scores images with some weights; `seed` is that of the noise."""
    prior = analysis.fitted_prior.Mixture(found.prior) if found.prior else None
    evaluate = analysis.metrics.Evaluator(storage.weights.build(found), seed, prior=prior)

    def score(images: NDArray[np.uint8]) -> Scores:
        values = evaluate(images).values
        return {name: values[name] for name in SCORES if name in values}

    return score


# AUROC ----------------------------------------------------------------------------------------

Results = dict[str, dict[str, Auroc]]


def auroc(normal: NDArray[np.floating], other: NDArray[np.floating]) -> Auroc:
    """Returns the probability that a score in `other` is higher than one in `normal`."""
    from sklearn.metrics import roc_auc_score

    scores = np.concatenate([normal, other])
    is_other = np.repeat([0, 1], [len(normal), len(other)])
    value = float(roc_auc_score(is_other, scores))
    return Auroc(value, hanley_mcneil(value, len(normal), len(other)))


def hanley_mcneil(area: float, normal: int, other: int) -> float | None:
    """Returns the standard error of an AUROC from the numbers of images; None for one image.

    Hanley and McNeil, "The meaning and use of the area under a ROC curve", 1982.
    """
    if other < 2:
        return None
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (other - 1) * (q1 - area**2) + (normal - 1) * (q2 - area**2)
    return float(np.sqrt(max(variance, 0.0) / (normal * other)))


def compared(
    score: Scorer, test_images: NDArray[np.uint8], others: dict[str, NDArray[np.uint8]]
) -> Results:
    """Returns the AUROC of each score for each kind of images that are not MNIST's.

    Args:
        score: the function that scores images.
        test_images: uint8 (n, 784).
        others: other images, uint8 (n, 784) by their kind.
    """
    normal = score(test_images)
    results = {}
    for kind, images in others.items():
        scores = score(images)
        results[kind] = {name: auroc(normal[name], scores[name]) for name in scores}
    return results


def left_out(dataset: Dataset, args: argparse.Namespace) -> Results:
    """Trains without each digit in turn, and returns the AUROC of each score for that digit.

    With several seeds, the AUROC is the mean over them.
    """
    assert dataset.test.labels is not None, "MNIST has labels"
    results: Results = {}
    for digit in range(DIGITS):
        is_other = dataset.test.labels == digit
        by_seed = []
        for seed in range(args.seed, args.seed + args.seeds):
            found = storage.weights.read(train_without(digit, seed, args))
            scores = scorer(found, seed)(dataset.test.images)
            by_seed.append({name: auroc(x[~is_other], x[is_other]) for name, x in scores.items()})
        results[str(digit)] = {
            name: mean_over_seeds([one[name] for one in by_seed]) for name in by_seed[0]
        }
        print_table(f"the digit {digit} left out", {str(digit): results[str(digit)]})
    return results


def mean_over_seeds(found: list[Auroc]) -> Auroc:
    """Returns the mean AUROC of runs with several seeds on the same test images.

    Its standard error has two parts: that of one run, over images, which more runs do not lower,
    and that of the mean over runs, if there are several.
    """
    values = [one.value for one in found]
    over_images = np.mean([one.standard_error or 0.0 for one in found])
    over_runs = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Auroc(float(np.mean(values)), float(np.hypot(over_images, over_runs)))


def mean_over_digits(results: Results) -> Results:
    """Returns the mean AUROC over the digits; their errors are taken as independent."""
    means = {}
    for name in SCORES:
        rows = [row[name] for row in results.values() if name in row]
        if len(rows) == len(results):
            errors = [row.standard_error or 0.0 for row in rows]
            error = float(np.sqrt(np.sum(np.square(errors))) / len(rows))
            means[name] = Auroc(float(np.mean([row.value for row in rows])), error)
    return {"mean": means}


def train_without(digit: int, seed: int, args: argparse.Namespace) -> str:
    """Trains a run without one digit, unless it is finished; returns its weights folder."""
    name = f"without_{digit}_seed_{seed}_epochs_{args.epochs}_latent_{args.latent_dim}"
    folder = os.path.abspath(os.path.join(args.output_dir, "left_out", name))
    weights = os.path.join(folder, "weights")
    digits = [str(other) for other in range(DIGITS) if other != digit]
    flags = [
        *("--digits", *digits),
        *("--seed", str(seed)),
        *("--epoch", str(args.epochs)),
        *("--latent_dim", str(args.latent_dim)),
        *("--save_weight_dir", weights),
        *("--log_dir", os.path.join(folder, "log")),
    ]
    common.run_script(["train.py", *flags, *common.data_flags(args)])
    return weights


# Output ---------------------------------------------------------------------------------------


def shown(others: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.uint8]]:
    """Returns images of each kind for anomaly.png, evenly spaced so that all variants occur."""
    return {
        kind: images[np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int)]
        for kind, images in others.items()
    }


def print_table(title: str, results: Results) -> None:
    """Prints a row for each kind of images."""
    names = [name for name in SCORES if any(name in row for row in results.values())]
    print(f"\nAUROC: {title}")
    print(" " * 28 + "".join(f"{name:>20}" for name in names))
    for kind, row in results.items():
        print(f"{kind:<28}" + "".join(f"{_cell(row[name]):>20}" for name in names), flush=True)


def _cell(found: Auroc) -> str:
    if found.standard_error is None:
        return f"{found.value:.4f}"
    return f"{found.value:.4f} +- {found.standard_error:.4f}"


def as_json(results: Results) -> dict[str, dict[str, dict[str, float | None]]]:
    """Returns results as they are written."""
    return {
        kind: {name: found._asdict() for name, found in row.items()}
        for kind, row in results.items()
    }


if __name__ == "__main__":
    sys.exit(main())
