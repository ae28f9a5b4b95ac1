"""Judges generated digits by a small classifier: how sure it is, which digits, how far from real.

    python -m bench.samples better_weight                              # 10,000 samples
    python -m bench.samples better_weight/*/ --data_dir ~/mnist

The classifier, a small convolutional network, is trained on MNIST once (about two minutes) and kept
in bench/cache/. For each weights folder, with z sampled from N(0, I), from the fitted prior and
from the posterior q(z | x) of training images: the share of samples to which it gives no class a
probability of 0.5 or more (unsure), the share of each class, and the Frechet distance between its
128 features of the samples and of the training images. That is the formula of the FID (Heusel et
al. 2017, eq. 6) in another space: NOT the Inception FID, and comparable with numbers of this script
alone. The first row, real test images, is the reference. Then how often a digit that is generated
by class is classified as that class. Writes samples.json to --output_dir, and samples.png: the
first hundred of each row of the first folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import charts, common
from support import analysis, cli, files, noise, startup, storage
from support.datasets.types import PIXELS, SIDE, Dataset
from support.errors import UserError

if TYPE_CHECKING:
    import keras

    import model
    from support.analysis.fitted_prior import Mixture
    from support.storage.validation import Weights

CACHE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cache")
LEAST_ACCURACY = 0.99
EPOCHS = 6
UNSURE = 0.5
CLASSES = 10
REAL = "real test images"
# How many digits of each kind samples.png shows.
SHOWN = 100


class Moments(NamedTuple):
    """The mean and the covariance of features."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


# Function of images, uint8 (n, 784), that returns probabilities (n, 10) and features (n, 128).
Classifier = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float64]]]


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.samples", __doc__)
    cli.add_seed_flag(parser)
    parser.add_argument("folders", nargs="+", help="weights folders that train.py wrote")
    parser.add_argument(
        "--num", type=cli.integer(1000), default=10_000, help="samples of each kind"
    )
    cli.add_data_flags(parser, "MNIST, on which the classifier is trained")
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Weights folders -> samples -> classifier -> table, samples.json and samples.png."""
    all_weights = {folder: storage.weights.read(folder) for folder in args.folders}
    files.writable_folder(args.output_dir)
    if args.dataset not in ("auto", "mnist"):
        raise UserError(f"--dataset {args.dataset}: the classifier is for MNIST, drop the flag")
    args.dataset = "mnist"
    dataset = common.load_data(args)
    startup.import_tensorflow()
    classifier, accuracy = trained_classifier(dataset)
    print(
        f"Classifier: test accuracy {100 * accuracy:.2f} %. Features: 128, NOT the Inception FID."
    )
    real = moments(classifier(dataset.train.images)[1])
    figures = {REAL: judged(classifier, dataset.test.images, real)}
    tables: dict[str, NDArray] = {}
    shown: dict[str, NDArray[np.uint8]] = {}
    for folder, found in all_weights.items():
        vae = storage.weights.build(found)
        prior = fitted_prior_of(found)
        for name, images in sampled(vae, prior, args, dataset.train.images).items():
            row = f"{folder}: {name}"
            figures[row] = judged(classifier, images, real)
            if folder == args.folders[0]:
                shown[chart_title(f"z from {name}", figures[row])] = images[:SHOWN]
        if prior:
            by_class = generated(vae, prior, args, labels=tuple(range(CLASSES)))
            tables[folder] = confusion(classifier, by_class)
    shown[chart_title(REAL, figures[REAL])] = dataset.test.images[:SHOWN]
    print_figures(figures)
    print_confusions(tables)
    with files.disk_errors(args.output_dir):
        charts.mosaics(os.path.join(args.output_dir, "samples.png"), shown)
        content = {"classifier_accuracy": accuracy, "num": args.num, "seed": args.seed} | figures
        content |= {f"{folder}: confusion": table.tolist() for folder, table in tables.items()}
        files.write_json(os.path.join(args.output_dir, "samples.json"), content)


def trained_classifier(dataset: Dataset) -> tuple[Classifier, float]:
    """Returns the classifier, trained or from the cache, and its test accuracy.

    Raises:
        UserError: the accuracy is below `LEAST_ACCURACY`.
    """
    import keras

    network = new_network()
    # Named after what it is made from: no other data set or network finds an old cache.
    key = hashlib.sha256((dataset.sha256 + network.to_json()).encode()).hexdigest()[:16]
    path = os.path.join(CACHE, f"classifier-{key}.weights.h5")
    if os.path.isfile(path):
        network.load_weights(path)
    else:
        print("Training the classifier once ...", file=sys.stderr)
        os.makedirs(CACHE, exist_ok=True)
        train_network(network, dataset)
        files.write_whole(path, network.save_weights)

    def classifier(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        logits, features = network.predict(images / np.float32(255), batch_size=1000, verbose=0)
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        return probabilities, features.astype(np.float64)

    predicted = classifier(dataset.test.images)[0].argmax(axis=1)
    accuracy = float((predicted == dataset.test.labels).mean())
    if accuracy < LEAST_ACCURACY:
        raise UserError(
            f"{path}: the classifier's test accuracy is {accuracy:.4f}: remove the file"
        )
    return classifier, accuracy


def new_network() -> keras.Model:
    """Returns the classifier with random weights: images (n, 784) to logits and features."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((PIXELS,))
    x = layers.Reshape((SIDE, SIDE, 1))(image)
    for channels in (32, 64):
        x = layers.Conv2D(channels, 3, activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    features = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    logits = layers.Dense(CLASSES)(layers.Dropout(0.3)(features))
    return keras.Model(image, [logits, features])


def train_network(network: keras.Model, dataset: Dataset) -> None:
    """Trains the classifier on the training images."""
    import keras

    logits_alone = keras.Model(network.input, network.output[0])
    steps = EPOCHS * -(-len(dataset.train.images) // 128)
    logits_alone.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    logits_alone.fit(
        dataset.train.images / np.float32(255),
        dataset.train.labels,
        batch_size=128,
        epochs=EPOCHS,
        verbose=1 if sys.stderr.isatty() else 2,
    )


def fitted_prior_of(found: Weights) -> Mixture | None:
    """Returns the fitted prior of weights; None where they have none."""
    return analysis.fitted_prior.Mixture(found.prior) if found.prior else None


def sampled(
    vae: model.VAE, prior: Mixture | None, args: argparse.Namespace, images: NDArray[np.uint8]
) -> dict[str, NDArray[np.uint8]]:
    """Returns generated digits, uint8 (num, 784), by what z was sampled from.

    From `N(0, I)` and, where there is one, the `fitted prior`, as eval_genresult.py generates them;
    from the `posterior` of training images, better than which no prior can be.

    Args:
        vae: the model.
        prior: the fitted prior; None: there is none.
        args: with `num` and `seed`.
        images: uint8 (n, 784), the training images.
    """
    found = {"N(0, I)": generated(vae, None, args)}
    if prior:
        found["fitted prior"] = generated(vae, prior, args)
    found["posterior"] = posterior_samples(vae, args, images)
    return found


def generated(
    vae: model.VAE,
    prior: Mixture | None,
    args: argparse.Namespace,
    labels: tuple[int, ...] = (),
) -> NDArray[np.uint8]:
    """Returns digits as eval_genresult.py generates them, uint8 (num, 784).

    Args:
        vae: the model.
        prior: the fitted prior; None: N(0, I).
        args: with `num` and `seed`.
        labels: the classes to generate in turn; empty: as frequent as in training.
    """
    sampler = analysis.generation.Sampler(vae.latent_dim, args.seed, prior=prior, labels=labels)
    return np.concatenate(list(analysis.generation.generate(vae.decoder, sampler, args.num)))


def posterior_samples(
    vae: model.VAE, args: argparse.Namespace, images: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Returns digits decoded from one z of q(z | x) of each of `num` images, uint8 (num, 784)."""
    chosen = np.random.default_rng(args.seed).choice(len(images), args.num)
    mu, log_var = analysis.metrics.encode(vae, images[chosen])
    drawn = noise.normal([*mu.shape], args.seed, noise.EVALUATION, 0)
    z = np.array_split(mu + np.exp(0.5 * log_var) * drawn, -(-args.num // 1000))
    return np.concatenate([analysis.metrics.to_uint8(vae.decode(part)) for part in z])


def confusion(classifier: Classifier, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns counts of digits by requested class (rows) and predicted class (columns).

    Args:
        classifier: of them.
        images: generated by class, 0 to 9 in turn.
    """
    predicted = classifier(images)[0].argmax(axis=1)
    table = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(table, (np.arange(len(images)) % CLASSES, predicted), 1)
    return table


def moments(features: NDArray[np.float64]) -> Moments:
    """Returns the mean and the covariance of features (n, 128)."""
    return Moments(features.mean(axis=0), np.cov(features, rowvar=False))


def judged(classifier: Classifier, images: NDArray[np.uint8], real: Moments) -> dict[str, Any]:
    """Returns what the classifier says of images, beside the moments of real ones."""
    probabilities, features = classifier(images)
    counts = np.bincount(probabilities.argmax(axis=1), minlength=CLASSES)
    return {
        "frechet_distance": frechet_distance(moments(features), real),
        "unsure": float((probabilities.max(axis=1) < UNSURE).mean()),
        "share_of_digit": (counts / len(images)).tolist(),
    }


def frechet_distance(first: tuple[NDArray, NDArray], second: tuple[NDArray, NDArray]) -> float:
    """Returns the squared Frechet distance of two Gaussians, each a mean and a covariance.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Dowson and Landau 1982.
    """
    from scipy import linalg

    (m1, c1), (m2, c2) = first, second
    # The eigenvalues of C1 C2 are real and not negative but for rounding: so is their root.
    roots = np.sqrt(np.maximum(linalg.eigvals(c1 @ c2).real, 0))
    return float(np.sum((m1 - m2) ** 2) + np.trace(c1) + np.trace(c2) - 2 * roots.sum())


def chart_title(name: str, figures: Mapping[str, Any]) -> str:
    """Returns the title of a square of digits in samples.png."""
    distance, unsure = figures["frechet_distance"], 100 * figures["unsure"]
    return f"{name}: Frechet {distance:.2f}, unsure {unsure:.2f} %"


def print_figures(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for each kind of samples."""
    print(f"{'':<38}{'Frechet':>9}{'unsure %':>10}   share of each digit, %")
    for name, row in figures.items():
        shares = " ".join(f"{100 * share:4.1f}" for share in row["share_of_digit"])
        distance, unsure = row["frechet_distance"], 100 * row["unsure"]
        print(f"{name:<38}{distance:>9.2f}{unsure:>10.2f}   {shares}")


def print_confusions(tables: Mapping[str, NDArray]) -> None:
    """Prints, for each folder, how its digits by class are classified."""
    for folder, table in tables.items():
        share = 100 * table.trace() / table.sum()
        print(f"{folder}: {share:.2f} % of digits by class are classified as requested.")
        print("Rows: requested class; columns: predicted class.")
        for row in table:
            print(" ".join(f"{count:5}" for count in row))


if __name__ == "__main__":
    sys.exit(main())
