"""Judges generated digits by a small classifier: how sure it is, which digits, how far from real.

    python -m bench.samples better_weight                              # 10,000 draws
    python -m bench.samples better_weight/*/ --data_dir ~/mnist

The classifier, a small convolutional one, is trained on MNIST once (about two minutes) and kept in
bench/cache/. For each weights folder, with z of N(0, I), of the fitted prior and of the posterior:
the share of draws that it gives less than 0.5 to any digit (unsure), the share of each digit, and
the Frechet distance between its 128 features of the draws and of the training images. That is the
formula of the FID (Heusel et al. 2017, eq. 6) in another space: NOT the Inception FID, and
comparable with numbers of this script alone. The first row, the real test images, is the yardstick.
Then how often the classifier names the digit that was asked for. Writes samples.json to
--output_dir, and samples.png: the first hundred of each row of the first folder.
"""

import hashlib
import os
import sys
from functools import partial

import numpy as np

import data
import eval_genresult
from bench import charts
from support import UserError, cli, files, prior, weights

CACHE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cache")
LEAST_ACCURACY = 0.99
EPOCHS = 6
UNSURE = 0.5


def parser():
    """Returns the parser of this script's flags."""
    parser = cli.Parser("bench.samples", __doc__)
    parser.add_argument("folders", nargs="+", help="weights folders that train.py wrote")
    parser.add_argument(
        "--num", type=cli.integer(1000), default=10_000, help="draws of each folder"
    )
    cli.add_data_flags(parser, "MNIST, which the classifier is of")
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args):
    """Weights folders -> draws -> classifier -> table and samples.json."""
    for folder in args.folders:
        weights.read(folder)
    files.writable_folder(args.output_dir)
    if args.dataset not in ("auto", "mnist"):
        raise UserError(f"--dataset {args.dataset}: this classifier is of MNIST, drop the flag")
    dataset = data.load("mnist", args.data_dir)
    cli.quiet_tensorflow()
    classifier, accuracy = trained_classifier(dataset)
    print(
        f"Classifier: test accuracy {100 * accuracy:.2f} %. Features: 128, NOT the Inception FID."
    )
    real = moments(classifier(dataset.train.images)[1])
    measured = {"real test images": judged(classifier, dataset.test.images, real)}
    tables, shown = {}, {}
    for folder in args.folders:
        run, arrays = weights.read(folder)
        vae = weights.build(run, arrays)
        fitted = prior.Mixture(arrays["prior"]) if "prior" in arrays else None
        for name, images in drawn(vae, fitted, args.num, args.seed, dataset.train.images).items():
            measured[f"{folder}: {name}"] = judged(classifier, images, real)
            if folder == args.folders[0]:
                shown[f"z of {name}"] = (images[:100], measured[f"{folder}: {name}"])
        if fitted:
            asked = generated(vae, fitted, args.num, args.seed, list(range(10)))
            tables[folder] = confusion(classifier, asked)
    print(f"{'':<38}{'Frechet':>9}{'unsure %':>10}   share of each digit, %")
    for name, figures in measured.items():
        shares = " ".join(f"{100 * share:4.1f}" for share in figures["share_of_digit"])
        distance, unsure = figures["frechet_distance"], 100 * figures["unsure"]
        print(f"{name:<38}{distance:>9.2f}{unsure:>10.2f}   {shares}")
    content = {"classifier_accuracy": accuracy, "num": args.num, "seed": args.seed} | measured
    for folder, table in tables.items():
        content[f"{folder}: confusion"] = table.tolist()
        share = 100 * table.trace() / table.sum()
        print(f"{folder}: {share:.2f} % of digits by class are named as asked; asked, named:")
        print("\n".join(" ".join(f"{n:5}" for n in row) for row in table))
    shown["real test images"] = dataset.test.images[:100], measured["real test images"]
    panels = {}
    for name, (images, figures) in shown.items():
        unsure = 100 * figures["unsure"]
        title = f"{name}: Frechet {figures['frechet_distance']:.2f}, unsure {unsure:.2f} %"
        panels[title] = images
    with files.disk_errors(args.output_dir):
        charts.mosaics(os.path.join(args.output_dir, "samples.png"), panels)
        files.write_json(os.path.join(args.output_dir, "samples.json"), content)


def trained_classifier(dataset):
    """Returns a function of uint8 images, to probabilities and features, and its test accuracy.

    Raises:
        UserError: the accuracy is below `LEAST_ACCURACY`.
    """
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((784,))
    x = layers.Reshape((28, 28, 1))(image)
    for channels in (32, 64):
        x = layers.Conv2D(channels, 3, activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    features = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    digit = layers.Dense(10)(layers.Dropout(0.3)(features))
    model = keras.Model(image, [digit, features])
    # Named by what it is made from: another data set or network never meets an old cache.
    key = hashlib.sha256((dataset.sha256 + model.to_json()).encode()).hexdigest()[:16]
    path = os.path.join(CACHE, f"classifier-{key}.weights.h5")
    if os.path.isfile(path):
        model.load_weights(path)
    else:
        print("Training the classifier once ...", file=sys.stderr)
        os.makedirs(CACHE, exist_ok=True)
        teacher = keras.Model(image, digit)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        steps = EPOCHS * -(-len(dataset.train.images) // 128)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        teacher.compile(keras.optimizers.Adam(rate), loss)
        teacher.fit(
            dataset.train.images / np.float32(255),
            dataset.train.labels,
            batch_size=128,
            epochs=EPOCHS,
            verbose=1 if sys.stderr.isatty() else 2,
        )
        files.write_whole(path, model.save_weights)

    def classifier(images):
        logits, found = model.predict(images / np.float32(255), batch_size=1000, verbose=0)
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits)), found.astype(np.float64)

    guessed = classifier(dataset.test.images)[0].argmax(axis=1)
    accuracy = float((guessed == dataset.test.labels).mean())
    if accuracy < LEAST_ACCURACY:
        raise UserError(
            f"{path}: the classifier's test accuracy is {accuracy:.4f}: remove the file"
        )
    return classifier, accuracy


def drawn(vae, fitted, num, seed, images):
    """Returns dict of name -> `num` digits, uint8 (num, 784), by what z was drawn from.

    `N(0, I)` and, where there is one, `fitted prior`, as eval_genresult.py draws them; `posterior`
    of as many of the training images in `images`, of which no prior can be better.
    """
    from support import evaluation, window

    found = {"N(0, I)": generated(vae, None, num, seed)}
    if fitted:
        found["fitted prior"] = generated(vae, fitted, num, seed)
    chosen = np.random.default_rng(seed).choice(len(images), num)
    mu, log_var = evaluation.encoded(vae, images[chosen])
    noise = window.normal(mu.shape, seed, window.EVALUATION_STREAM, 0)
    z = np.array_split(mu + np.exp(0.5 * log_var) * noise, -(-num // 1000))
    parts = [evaluation.as_digits(vae.decode(part)) for part in z]
    return found | {"posterior": np.concatenate(parts)}


def generated(vae, fitted, num, seed, digits=None):
    """Returns digits as eval_genresult.py draws them, uint8 (num, 784)."""
    draw = partial(eval_genresult.chunk_of_z, vae.latent_dim, seed, 1.0, fitted, digits)
    return np.concatenate(list(eval_genresult.generate(vae.decoder, draw, num)))


def confusion(classifier, images):
    """Returns how often which digit was named: rows are those asked for, 0 to 9 in turn."""
    named = classifier(images)[0].argmax(axis=1)
    table = np.zeros((10, 10), int)
    np.add.at(table, (np.arange(len(images)) % 10, named), 1)
    return table


def moments(features):
    """Returns the mean and the covariance of features (n, 128)."""
    return features.mean(axis=0), np.cov(features, rowvar=False)


def judged(classifier, images, real):
    """Returns what the classifier says of images, beside the `moments` of real ones."""
    probabilities, features = classifier(images)
    counts = np.bincount(probabilities.argmax(axis=1), minlength=10)
    return {
        "frechet_distance": frechet_distance(moments(features), real),
        "unsure": float((probabilities.max(axis=1) < UNSURE).mean()),
        "share_of_digit": (counts / len(images)).tolist(),
    }


def frechet_distance(first, second):
    """Squared Frechet distance of two Gaussians, each a mean and a covariance.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Dowson and Landau 1982.
    """
    from scipy import linalg

    (m1, c1), (m2, c2) = first, second
    # The eigenvalues of C1 C2 are real and not negative but for rounding: so is their root.
    roots = np.sqrt(np.maximum(linalg.eigvals(c1 @ c2).real, 0))
    return float(np.sum((m1 - m2) ** 2) + np.trace(c1) + np.trace(c2) - 2 * roots.sum())


if __name__ == "__main__":
    sys.exit(main())
