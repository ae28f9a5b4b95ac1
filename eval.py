"""Evaluates trained weights on all test images, and draws reconstructions.

    python eval.py                                 # the pretrained weights
    python eval.py --load_weight_dir weight_train  # your own weights
    python eval.py --nll_samples 5000              # also estimate -log p(x)
    python eval.py --report                        # also draw the latent space
    python eval.py --images my7.png scans/         # also your own images
    python eval.py --images my7.png my3.png --interpolate
    python eval.py --save_latents latents.npz      # also mu and metrics of each image

Writes metrics.json, reconstructions.png and extremes.png to --output_dir. Also
writes report.png with --report, own.png with --images, own_interpolation.png
with --interpolate, and projector_... with --projector. Metrics are means over
all test images; --batch changes them only by rounding errors.
"""

import os
import sys

# The modules beside this file are found even if PYTHONSAFEPATH is set.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# First, since it says in one line what is not installed.
import support.installation  # noqa: F401

# isort: split
import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import data
from support import analysis, cli, datasets, display, files, noise, records, startup, storage
from support.datasets.types import Dataset
from support.errors import UserError
from support.text import visible

if TYPE_CHECKING:
    from support.analysis.latents import Table
    from support.analysis.metrics import Figures
    from support.analysis.own_images import OwnImage
    from support.datasets.photos import Digit
    from support.storage.validation import Weights

# Names of the classifiers in report.png, by metric.
CLASSIFIERS = {"probe_accuracy": "a linear classifier", "prior_accuracy": "the fitted prior"}
MNIST_TEST_IMAGES = 10_000
# Pictures that are written only if a flag asks for them.
OPTIONAL_PICTURES = ("report.png", "own.png", "own_interpolation.png")
# Images in reconstructions.png, in each of its rows, and at each end of extremes.png.
RECONSTRUCTED, RECONSTRUCTED_COLUMNS, EXTREMES = 100, 20, 10


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("eval.py", __doc__)
    cli.add_seed_flag(parser)
    cli.add_load_weights_flag(parser)
    parser.add_argument(
        "--batch",
        "--batch_size",
        type=cli.integer(1),
        default=1000,
        metavar="N",
        help="images evaluated at a time",
    )
    parser.add_argument(
        "--nll_samples",
        type=cli.integer(0, 10**6),
        default=0,
        metavar="K",
        help="importance samples per image for nll, an estimate of -log p(x) of binarized images; "
        "0: no estimate; published results use 5000",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="also draw report.png: a map of mu, the KL of each latent dimension, how well mu "
        "predicts the classes, the images with the lowest and highest -ELBO",
    )
    parser.add_argument(
        "--map",
        choices=("tsne", "pca"),
        default="tsne",
        help="how --report maps mu: t-SNE keeps neighbours together, PCA is linear and faster",
    )
    group = parser.add_argument_group("your own images")
    group.add_argument(
        "--images",
        type=cli.path,
        nargs="+",
        metavar="PATH",
        help="photos or scans of digits, of any size, dark on light or light on dark: files, "
        "folders or patterns (default: none)",
    )
    group.add_argument(
        "--interpolate",
        action="store_true",
        help="also draw a spherical interpolation from each digit in --images to the next one",
    )
    add_image_flags(parser)
    cli.add_data_flags(parser, "the data set that the weights were trained on")
    cli.add_output_flag(parser)
    return parser


def add_image_flags(parser: cli.Parser) -> None:
    """Adds the flags that write the results of each image."""
    group = parser.add_argument_group("results of each image")
    group.add_argument(
        "--save_latents",
        type=cli.path,
        metavar="FILE.npz",
        help="also write mu, log_var, labels and metrics, with a row for each image (default: "
        "none)",
    )
    group.add_argument(
        "--save_scores",
        type=cli.path,
        metavar="FILE.csv",
        help="also write metrics and anomaly scores, with a row for each image: the percentile is "
        "the percentage of validation images whose loss_total (-ELBO) is lower (default: none)",
    )
    group.add_argument(
        "--threshold",
        type=cli.number(0, 100),
        metavar="PERCENT",
        help="mark images whose percentile is above this, in the column `above` of --save_scores "
        "(default: none are marked)",
    )
    group.add_argument(
        "--projector",
        action="store_true",
        help="also write to --output_dir what TensorBoard's Embedding Projector shows: mu of each "
        "image, as a point that is drawn as the image",
    )
    group.add_argument(
        "--split",
        choices=("test", "train", "validation", "all"),
        default="test",
        help="which images these results are of; those of --images are always added",
    )


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Weights -> metrics on the whole test set -> table, metrics.json and pictures."""
    require_flags(args)
    weights_path = cli.weights_path(args)
    found = storage.weights.read(weights_path)
    own_digits = read_own_digits(args)
    test_set = load_test_set(found.record, args)
    files.writable_folder(args.output_dir)
    for path in image_files(args):
        files.writable_folder(os.path.dirname(os.path.abspath(path)))

    print("Importing TensorFlow ...", flush=True)
    startup.import_tensorflow()
    model = TrainedModel(found, args.seed, args.batch)
    figures = evaluate(model, test_set, args)
    if not np.isfinite(list(figures.means().values())).all():
        raise UserError(
            f"{weights_path}: the metrics of these weights are NaN or infinite: train again with a "
            "smaller --learning_rate"
        )
    metrics = summarize(model, test_set, figures, args)
    print_table(metrics, figures, test_set)
    analysis.collapse.print_notice(found.record)
    own = evaluate_own_digits(model, own_digits, figures.values["loss_total"])
    if own:
        metrics["own_images"] = [image.to_json() for image in own]
        display.own_images.print_table(own)

    with storage.locks.output_folder(args.output_dir), files.disk_errors(args.output_dir):
        files.write_json(os.path.join(args.output_dir, "metrics.json"), metrics)
        draw_reconstructions(args.output_dir, model, test_set, figures)
        draw_extremes(args.output_dir, model, test_set, figures)
        names = ["metrics.json", "reconstructions.png", "extremes.png"]
        if own:
            names += draw_own_images(args.output_dir, model, own, args.interpolate)
        if args.report:
            names.append("report.png")
            draw_report(args.output_dir, model, test_set, figures, args)
    print(f"Wrote {', '.join(names)} to {visible(args.output_dir)}.")
    name_other_pictures(args.output_dir, names)
    if image_files(args) or args.projector:
        save_image_results(model, test_set, figures, own, args)


def name_other_pictures(folder: str, written: Sequence[str]) -> None:
    """Prints which pictures of an earlier command are still in the output folder."""
    others = [
        name
        for name in OPTIONAL_PICTURES
        if name not in written and os.path.exists(os.path.join(folder, name))
    ]
    if others:
        print(f"Notice: from an earlier command, and unchanged: {', '.join(others)}.")


# The test set ---------------------------------------------------------------------------------


class TestSet(NamedTuple):
    """The test images of a data set, and whether results on them can be compared.

    Attributes:
        dataset: the whole data set.
        images: its test images as the model is evaluated on them, uint8 (n, 784).
        trained_on: the data set that the weights were trained on.
    """

    dataset: Dataset
    images: NDArray[np.uint8]
    trained_on: records.DatasetRecord

    @property
    def is_partial(self) -> bool:
        """Whether these are only the test images of MNIST that this repository includes."""
        return bool(self.dataset.fallback_reason)

    @property
    def labels(self) -> NDArray[np.uint8] | None:
        """The labels of the images, (n,); None if the data set has none."""
        return self.dataset.test.labels

    @property
    def description(self) -> str:
        """The number of images and their data set, for the table and the titles of pictures."""
        count = f"{len(self.images):,}"
        if self.is_partial:
            count += f" of {MNIST_TEST_IMAGES:,}"
        return f"{count} test images of {self.dataset.name}"

    @property
    def not_comparable_reason(self) -> str:
        """Why results on these images cannot be compared with others; empty if they can."""
        if self.is_partial:
            return f"these are only the {len(self.images)} test images included in this repository"
        if self.dataset.sha256 == self.trained_on.sha256:
            return ""
        if self.dataset.name == self.trained_on.name:
            return f"these weights were trained on different {self.trained_on.name} images"
        return f"these weights were trained on {self.trained_on.name}"

    @property
    def title(self) -> str:
        """The description, marked if results cannot be compared."""
        mark = " (not comparable)" if self.not_comparable_reason else ""
        return self.description + mark


def load_test_set(record: records.RunRecord, args: argparse.Namespace) -> TestSet:
    """Loads the data set that the weights were trained on, or the one that `--dataset` gives.

    Raises:
        UserError: the data set is not available, or lacks what a flag needs.
    """
    dataset = load_dataset(record.dataset, args)
    for line in (*dataset.description, *(f"Notice: {notice}" for notice in dataset.notices)):
        print(line)
    images = noise.evaluation_images(
        dataset.test.images, record.trained_on_binary_images, args.seed
    )
    test_set = TestSet(dataset, images, record.dataset)
    if record.dataset.classes:
        print(
            "Notice: these weights were trained only on images of "
            f"{record.dataset.classes_as_typed:.400}, and are evaluated on all."
        )
    if test_set.is_partial:
        for flag, is_given in (
            ("--report", args.report),
            (f"--split {args.split}", args.split != "test"),
            ("--save_scores", args.save_scores),
        ):
            if is_given:
                reason = f"which is not available: {dataset.fallback_reason}"
                raise UserError(f"{flag} needs all of MNIST, {reason}")
        print(f"MNIST is not available: {dataset.fallback_reason}.")
    if args.save_scores and dataset.sha256 != record.dataset.sha256:
        raise UserError(
            "--save_scores compares with validation images of the data that these weights were "
            f"trained on ({record.dataset.name}): leave out --dataset {args.dataset}"
        )
    return test_set


def load_dataset(trained_on: records.DatasetRecord, args: argparse.Namespace) -> Dataset:
    """Returns the data set; if MNIST is not available, its test images in this repository."""
    if args.dataset != "auto":
        with cli.error_context(f"--dataset {args.dataset}: "):
            path = cli.data_dir(args, args.dataset)
            return data.load(args.dataset, path, transpose=args.transpose)
    name = trained_on.name
    data_dir = cli.data_dir(args, name)
    own_data = data_dir or name == "custom"
    with cli.error_context("--data_dir: " if own_data else ""):
        if name == "custom" and not data_dir:
            raise UserError("these weights were trained on your own data: give its path")
        # `auto` recognizes MNIST and custom data by their content; the hash is checked below.
        known_by_content = data_dir and name in ("mnist", "custom")
        try:
            wanted = "auto" if known_by_content else name
            dataset = data.load(wanted, data_dir, transpose=args.transpose)
        except UserError as error:
            if data_dir or name != "mnist":
                raise
            return data.mnist_test_100(str(error))
        if dataset.sha256 != trained_on.sha256:
            raise UserError(
                f"{data_dir or name} does not hold the {name} images that these weights were "
                "trained on: use --data_dir to give the path of those images, or add --dataset "
                f"{dataset.name} to evaluate on the images found"
            )
    return dataset


# The model ------------------------------------------------------------------------------------


class TrainedModel:
    """A trained model with its fitted prior, and what this script does with both.

    Args:
        found: the weights.
        seed: seed of the noise.
        batch: number of images evaluated at a time.

    Attributes:
        record: the record of the run.
        vae: the model.
        prior: the fitted prior; None if there is none.
        seed: seed of the noise.
        evaluate: function of images, uint8 (n, 784), that returns their metrics.
    """

    def __init__(self, found: "Weights", seed: int, batch: int) -> None:
        self.record, self.seed = found.record, seed
        self.vae = storage.weights.build(found)
        self.prior = None
        if found.prior is not None:
            self.prior = analysis.fitted_prior.Mixture(found.prior)
        self.evaluate = analysis.metrics.Evaluator(self.vae, seed, batch, self.prior)

    @property
    def classifies(self) -> bool:
        """Whether the fitted prior has several classes."""
        return self.prior is not None and self.prior.classifies

    def evaluation_images(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns images, uint8 (n, 784), as the model is evaluated on them."""
        return noise.evaluation_images(images, self.record.trained_on_binary_images, self.seed)

    def decode(self, mu: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Returns the images of z = mu: (..., latent_dim) -> uint8 (..., 784)."""
        return analysis.generation.decode(self.vae.decoder, mu)


def evaluate(model: TrainedModel, test_set: TestSet, args: argparse.Namespace) -> "Figures":
    """Returns all metrics that the flags ask for, for each test image."""
    figures = model.evaluate(test_set.images)
    values = figures.values
    figures.add_prior_accuracy(test_set.labels)
    if args.nll_samples:
        binary = noise.bernoulli_sample(test_set.images, args.seed)
        values |= analysis.likelihood.nll(
            model.vae, binary, args.nll_samples, args.seed, model.prior, percent_bar()
        )
    training = test_set.dataset.train
    if args.report and test_set.labels is not None and training.labels is not None:
        images = model.evaluation_images(training.images)
        mu, _ = analysis.metrics.encode(model.vae, images)
        predicted = display.report.classify_linearly(mu, training.labels, figures.mu)
        values["probe_accuracy"] = (predicted == test_set.labels).astype(float)
    return figures


def percent_bar() -> Callable[[float], None] | None:
    """Returns a function that shows a fraction as a percentage; None if not on a terminal."""
    from keras.utils import Progbar

    if not sys.stdout.isatty():
        return None
    bar = Progbar(100, unit_name="percent")
    return lambda share: bar.update(round(100 * share))


# Metrics --------------------------------------------------------------------------------------


def summarize(
    model: TrainedModel, test_set: TestSet, figures: "Figures", args: argparse.Namespace
) -> dict[str, Any]:
    """Returns the content of metrics.json."""
    record = model.record
    content: dict[str, Any] = figures.means() | {
        "standard_errors": figures.standard_errors(),
        "nll_samples": args.nll_samples,
        "binarize": record.training["binarize"],
        "active_units": len(analysis.fitted_prior.active_units(figures.mu)),
        "latent_dim": model.vae.latent_dim,
        "images": len(test_set.images),
        "evaluated_on": test_set.description,
        "dataset": test_set.dataset.name,
        "dataset_sha256": test_set.dataset.sha256,
        "trained_on": record.dataset.name,
        "comparable": not test_set.not_comparable_reason,
        "prior": "standard" if model.prior is None else "fitted",
        "finished": record.finished,
        "seed": args.seed,
        "run_id": record.run_id,
        "step": record.step,
        "epochs_done": record.epochs_done,
    }
    if record.dataset.classes:
        content["trained_on_classes"] = list(record.dataset.classes)
    return content


def print_table(metrics: dict[str, Any], figures: "Figures", test_set: TestSet) -> None:
    """Prints the metrics, with the standard error of each mean over the images."""
    binarized = metrics["binarize"] == "dynamic"
    suffix = ", one Bernoulli sample of each" if binarized else ""
    print(f"{test_set.description}{suffix}, seed {metrics['seed']}")
    if test_set.not_comparable_reason:
        print(f"NOT COMPARABLE: {test_set.not_comparable_reason}.")
    if test_set.dataset.name == "digits":
        print("THIS IS NOT MNIST: these results cannot be compared with results on MNIST.")
    if not metrics["finished"]:
        print(f"The run is not finished: these are the weights of step {metrics['step']:,}.")
    display.metrics_table.print_metrics(figures, metrics["active_units"])
    if metrics["nll_samples"]:
        grey = "" if binarized else "; these weights were trained on GREYSCALE images"
        samples = f"{metrics['nll_samples']:,} importance samples"
        print(f"nll: {samples}, one Bernoulli sample of each image{grey}.")


# Pictures -------------------------------------------------------------------------------------


def draw_reconstructions(
    folder: str, model: TrainedModel, test_set: TestSet, figures: "Figures"
) -> None:
    """Draws the first test images, each row above its reconstructions."""
    count = min(RECONSTRUCTED, len(test_set.images))
    decoded = model.decode(figures.mu[:count])
    rows = []
    for first in range(0, count, RECONSTRUCTED_COLUMNS):
        part = slice(first, min(first + RECONSTRUCTED_COLUMNS, count))
        rows.append(display.plots.Row("original", test_set.images[part]))
        rows.append(display.plots.Row("reconstruction", decoded[part]))
    title = f"The first {count} of {test_set.title}, and their reconstructions (z = mu)"
    display.plots.draw(os.path.join(folder, "reconstructions.png"), title, rows)


def draw_extremes(folder: str, model: TrainedModel, test_set: TestSet, figures: "Figures") -> None:
    """Draws the test images with the best and with the worst reconstructions."""
    errors = figures.values["RMSE_mean"]
    order = np.argsort(errors, kind="stable")
    rows = []
    for name, which in (("best", order[:EXTREMES]), ("worst", order[::-1][:EXTREMES])):
        captions = [f"{error:.3f}" for error in errors[which]]
        rows.append(display.plots.Row(name, test_set.images[which]))
        decoded = model.decode(figures.mu[which])
        rows.append(display.plots.Row("reconstruction", decoded, captions))
    title = f"Best and worst reconstructions of {test_set.title}, with RMSE_mean"
    display.plots.draw(os.path.join(folder, "extremes.png"), title, rows)


def draw_report(
    folder: str,
    model: TrainedModel,
    test_set: TestSet,
    figures: "Figures",
    args: argparse.Namespace,
) -> None:
    """Draws report.png."""
    active = analysis.fitted_prior.active_units(figures.mu)
    latent_map = display.report.latent_map(figures.mu, active, args.map, args.seed)
    if model.prior is not None and len(active) == model.vae.latent_dim == 2:
        latent_map = latent_map._replace(components=model.prior.components)
    report = display.report.Report(
        description=test_set.title,
        images=test_set.images,
        labels=test_set.labels,
        class_names=test_set.dataset.class_names,
        elbo=figures.values["loss_total"],
        rmse=figures.values["RMSE_mean"],
        correct={
            name: figures.values[key] for key, name in CLASSIFIERS.items() if key in figures.values
        },
        latent_map=latent_map,
        kld=analysis.metrics.kld_by_dimension(figures.encoded),
        active_units=len(active),
    )
    display.report.draw(os.path.join(folder, "report.png"), report)


# Your own images ------------------------------------------------------------------------------


def read_own_digits(args: argparse.Namespace) -> "list[Digit]":
    """Reads the pictures of `--images` and prints the notices about them.

    Raises:
        UserError: no digit was found, or only one although `--interpolate` needs two.
    """
    if not args.images:
        if args.interpolate:
            raise UserError("--interpolate needs two digits of your own: add --images FIRST SECOND")
        return []
    with cli.error_context("--images: "):
        pictures = datasets.photos.read(args.images)
    for notice in pictures.notices:
        print(f"Notice: {notice}")
    if args.interpolate and len(pictures.digits) < 2:
        raise UserError(
            "--interpolate needs two digits, but only one was found: give --images another picture"
        )
    return list(pictures.digits)


def evaluate_own_digits(
    model: TrainedModel, digits: "Sequence[Digit]", test_elbo: NDArray[np.floating]
) -> "list[OwnImage]":
    """Returns the user's own digits with their metrics.

    Args:
        model: the model to evaluate them with.
        digits: the digits in the user's pictures.
        test_elbo: -ELBO of each test image, to compare with.
    """
    own = []
    for digit in digits:
        # One by one, so that the noise of a picture does not depend on its place in the list.
        seen = model.evaluation_images(digit.pixels[None])
        figures = model.evaluate(seen)
        image = analysis.own_images.compare(digit, seen[0], figures, test_elbo)
        if model.classifies:
            image = image.classified(figures, model.record.dataset.class_names)
        own.append(image)
    return own


def draw_own_images(
    folder: str, model: TrainedModel, own: "Sequence[OwnImage]", interpolate: bool
) -> list[str]:
    """Draws the user's own images and, if asked to, paths; returns the pictures' names."""
    names = ["own.png"]
    reconstructions = model.decode(np.stack([image.mu for image in own]))
    display.own_images.draw(os.path.join(folder, names[-1]), own, reconstructions)
    if interpolate:
        names.append("own_interpolation.png")
        pairs = [mu for first, second in itertools.pairwise(own) for mu in (first.mu, second.mu)]
        paths = model.decode(analysis.generation.interpolation(np.stack(pairs)))
        display.own_images.draw_interpolation(os.path.join(folder, names[-1]), own, paths)
    return names


# Results of each image ------------------------------------------------------------------------


def image_files(args: argparse.Namespace) -> list[str]:
    """Returns the files that the flags of this group ask for."""
    return [path for path in (args.save_latents, args.save_scores) if path]


def require_flags(args: argparse.Namespace) -> None:
    """Raises a `UserError` if a flag lacks another one, or a file would be lost."""
    if "map" in args.given and not args.report:
        raise UserError("--map says how --report maps mu: add --report, or leave it out")
    if "split" in args.given and not image_files(args) and not args.projector:
        raise UserError(
            "--split says whose results to save: add --save_latents, --save_scores or --projector, "
            "or leave it out"
        )
    if args.threshold is not None and not args.save_scores:
        raise UserError("--threshold marks rows of --save_scores: add it, or leave it out")
    if args.save_latents:
        with cli.error_context("--save_latents: "):
            analysis.latents.require_replaceable(args.save_latents)
    if args.save_scores:
        with cli.error_context("--save_scores: "):
            analysis.scores.require_replaceable(args.save_scores)


def save_image_results(
    model: TrainedModel,
    test_set: TestSet,
    figures: "Figures",
    own: "Sequence[OwnImage]",
    args: argparse.Namespace,
) -> None:
    """Writes the files that the flags of this group ask for.

    Args:
        model: the model.
        test_set: the data set.
        figures: the metrics of the test images.
        own: the user's own images.
        args: the parsed flags.
    """
    table = image_table(model, test_set, figures, own, args.split)
    class_names = test_set.dataset.class_names
    if args.save_latents:
        analysis.latents.write(args.save_latents, table, class_names)
        print(f"Wrote {visible(args.save_latents)}: {len(table):,} images.")
    if args.save_scores:
        reference = validation_elbo(model, test_set)
        percentile = analysis.scores.percentiles(table.metrics["loss_total"], reference)
        above = None
        if args.threshold is not None:
            above = percentile > args.threshold
            print("\n".join(analysis.scores.describe(table, above, args.threshold)))
        analysis.scores.write(args.save_scores, table, percentile, class_names, above)
        print(f"Wrote {visible(args.save_scores)}: {len(table):,} images.")
    if args.projector:
        write_projector(args.output_dir, table, class_names, model.record.dataset.class_names)


def write_projector(
    folder: str, table: "Table", class_names: tuple[str, ...], predicted_names: tuple[str, ...]
) -> None:
    """Writes the files of TensorBoard's projector, and prints how to open it."""
    with storage.locks.output_folder(folder), files.disk_errors(folder):
        count = display.projector.write(folder, table, class_names, predicted_names)
    if count < len(table):
        print(
            f"Notice: the projector shows only the first {count:,} of {len(table):,} images, which "
            "is as many as fit into a picture that browsers can draw."
        )
    names = ", ".join(display.projector.NAMES)
    command = f"tensorboard --logdir {cli.as_argument(folder)}"
    print(
        f"Wrote {names} to {visible(folder)}. Next: {command}, and open {display.projector.ADDRESS}"
    )


def validation_elbo(model: TrainedModel, test_set: TestSet) -> NDArray[np.floating]:
    """Returns -ELBO of the validation images, only of those classes that were trained on."""
    images, labels = test_set.dataset.validation
    elbo = model.evaluate(model.evaluation_images(images)).values["loss_total"]
    classes = model.record.dataset.classes
    if classes and labels is not None:
        return elbo[np.isin(labels, classes)]
    return elbo


def image_table(
    model: TrainedModel,
    test_set: TestSet,
    figures: "Figures",
    own: "Sequence[OwnImage]",
    split: str,
) -> "Table":
    """Returns a row for each image of `--split`, in order, and then for each of the user's own.

    Args:
        model: the model.
        test_set: the data set.
        figures: the metrics of the test images.
        own: the user's own images.
        split: the value of `--split`.
    """
    names = analysis.latents.SPLITS if split == "all" else (split,)
    tables = [split_table(model, test_set, figures, name) for name in names]
    if own:
        tables.append(analysis.latents.of_own_images(own))
    return analysis.latents.joined(tables)


def split_table(model: TrainedModel, test_set: TestSet, figures: "Figures", name: str) -> "Table":
    """Returns a row for each image of one part of the data set; the arguments are as above."""
    part = getattr(test_set.dataset, name)
    if name == "test":
        return analysis.latents.of_split(name, part, test_set.images, figures)
    images = model.evaluation_images(part.images)
    return analysis.latents.of_split(name, part, images, model.evaluate(images))


if __name__ == "__main__":
    cli.end_process(main())
