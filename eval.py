"""Evaluates trained weights on the whole test set, with pictures of reconstructions.

    python eval.py                                   # the pretrained weights, on MNIST
    python eval.py --load_weight_dir weight_train    # one's own
    python eval.py --nll_samples 5000                # and -log p(x), on binarized images
    python eval.py --latent_map --kl_per_unit --outliers --probe    # a closer look
    python eval.py --export encoder                  # a SavedModel to take away

Writes metrics.json, reconstructions.png and extremes.png to --output_dir. The figures are means
over all test images and do not depend on --batch beyond rounding.
"""

import os
import sys

import flags
from flags import UserError

TABLE = (
    ("loss_total", "nats, -ELBO"),
    ("loss_bce", "nats"),
    ("loss_KLD", "nats"),
    ("loss_l2", "grey"),
    ("RMSE", "grey, z sampled"),
    ("RMSE_mean", "grey, z = mu"),
)
# Shown where they are defined and asked for.
OPTIONAL = (
    ("probe_accuracy", "share of images"),
    ("loss_gaussian", "nats, of a density"),
    ("nll", "nats, of binarized images"),
)


def parser():
    """Returns the parser of this script's flags."""
    parser = flags.script_parser("eval.py", __doc__)
    parser.add_argument(
        "--load_weight_dir", default="./better_weight", help="a folder that train.py wrote"
    )
    parser.add_argument(
        "--batch", type=flags.integer(1), default=1000, help="images computed at a time"
    )
    parser.add_argument(
        "--nll_samples",
        type=flags.integer(0),
        default=0,
        metavar="K",
        help="estimate nll = -log p(x) of binarized test images with K importance samples; "
        "5000 as published; 0: not at all",
    )
    group = parser.add_argument_group("a closer look, each a picture or a figure more")
    group.add_argument(
        "--latent_map",
        action="store_true",
        help="the test images' mu in two dimensions (PCA), coloured by digit",
    )
    group.add_argument(
        "--kl_per_unit", action="store_true", help="mean KL of each latent dimension, as bars"
    )
    group.add_argument(
        "--outliers",
        action="store_true",
        help="histogram of -ELBO over the test images, and the digits at its ends",
    )
    group.add_argument(
        "--probe",
        action="store_true",
        help="test accuracy of a linear classifier of mu, fitted on the training images",
    )
    group.add_argument(
        "--projector",
        default="",
        metavar="LOG_DIR",
        help="write mu, digits and labels for TensorBoard's projector; empty: not at all",
    )
    flags.add_export_flag(parser, "encoder (images -> mu and log_var)")
    flags.add_data_flags(parser)
    flags.add_picture_flags(parser)
    return parser


def main(argv=None):
    """Runs the script with the flags `argv`; returns the exit code."""
    return flags.run_script(parser(), run, argv)


def run(args):
    """Weights folder -> figures on the whole test set -> table, metrics.json and pictures."""
    import config_file
    import weights

    config = config_file.read(args.load_weight_dir)
    weights.verified_weights(args.load_weight_dir, config)
    training = config["training"]
    for flag in ("nll_samples", "outliers"):
        if getattr(args, flag) and training["recon_loss"] != "bce":
            raise UserError(
                f"--{flag}: {args.load_weight_dir} was trained with --recon_loss "
                f"{training['recon_loss']}, not as a Bernoulli model: leave the flag away"
            )
    if args.latent_map and config["architecture"]["latent_dim"] < 2:
        raise UserError("--latent_map needs two latent dimensions at least: leave it away")
    if args.export and os.path.realpath(args.export) == os.path.realpath(args.projector):
        raise UserError("--export and --projector name one folder: name two")
    flags.writable_folder(args.output_dir, "--output_dir")
    for flag in ("export", "projector"):
        flags.require_new_folder(getattr(args, flag), f"--{flag}")
    if args.show:
        import figures

        figures.require_screen()
    dataset = load_dataset(args, config)
    config, vae = weights.load_vae(args.load_weight_dir)

    import measure
    import model

    if training["binarize"] == "dynamic":
        binary = measure.binarized(dataset.test.images, args.seed)
        dataset = dataset._replace(test=dataset.test._replace(images=binary))
    images = dataset.test.images
    evaluated = measure.evaluation(vae, args.seed, args.batch)(images)
    if config["variance"]:
        l2 = evaluated["loss_l2"]
        evaluated["loss_gaussian"] = model.loss_gaussian(l2, config["variance"]).numpy()
    if args.nll_samples:
        evaluated["nll"] = nll(vae, images, args)
    if args.probe:
        evaluated["probe_accuracy"] = probed(
            vae, dataset, evaluated["mu"], training["binarize"], args.seed
        )
    metrics = summary(args, config, dataset, evaluated)
    print_table(metrics, evaluated)
    with flags.disk_errors(f"--output_dir {args.output_dir}"):
        flags.write_json(os.path.join(args.output_dir, "metrics.json"), metrics)
        pictures = draw(args, vae, dataset, evaluated, metrics)
    names = ", ".join(map(os.path.basename, pictures))
    print(f"Wrote metrics.json, {names} to {args.output_dir}.")
    if args.projector:
        import logs

        with flags.disk_errors(f"--projector {args.projector}"):
            logs.write_projector(args.projector, evaluated["mu"], *dataset.test)
        print(f"Wrote {args.projector}: tensorboard --logdir {args.projector}, tab Projector.")
    if args.export:
        with flags.disk_errors(f"--export {args.export}"):
            weights.export_encoder(vae, args.export)
        print(f"Wrote the encoder as a SavedModel to {args.export}.")
    if args.show:
        figures.show(pictures)


def probed(vae, dataset, mu, binarize, seed):
    """Returns for each test image whether a linear classifier of mu names its digit, 1 or 0.

    Multinomial logistic regression with scikit-learn's default penalty, fitted on the training
    images' mu as it is: unscaled, a dimension that holds nothing stays small.

    Args:
        mu: of the test images, (n, latent_dim).
        binarize, seed: whether, and by which draw, the training images are binarized first.
    """
    from sklearn.linear_model import LogisticRegression

    import measure

    train = dataset.train
    if len(set(train.labels.tolist())) < 2:
        raise UserError("--probe needs labels of two digits at least: leave it away")
    images = train.images
    if binarize == "dynamic":
        images = measure.binarized(images, seed)
    known = measure.evaluation(vae, 0)(images)["mu"]
    classifier = LogisticRegression(max_iter=1000).fit(known, train.labels)
    return (classifier.predict(mu) == dataset.test.labels).astype(float)


def nll(vae, images, args):
    """Returns `measure.nll` of the test images, binarized, with a bar on a terminal."""
    from keras.utils import Progbar

    import measure

    bar = Progbar(100, unit_name="percent") if sys.stdout.isatty() else None
    done = bar and (lambda share: bar.update(round(100 * share)))
    return measure.nll(vae, measure.binarized(images, args.seed), args.nll_samples, args.seed, done)


def load_dataset(args, config):
    """Returns the data set that the weights were trained on, or the other one that was asked for.

    Raises:
        UserError: the weights' own data set can't be had.
    """
    import data

    trained_on = config["dataset"]
    if args.dataset != "auto":
        return data.load(args.dataset, args.data_dir)
    if trained_on["name"] == "custom" and not args.data_dir:
        raise UserError(
            f"{args.load_weight_dir} was trained on custom arrays: name them with --data_dir"
        )
    name = "digits" if trained_on["name"] == "digits" else "mnist"
    dataset = data.load(name, args.data_dir)
    if dataset.sha256 != trained_on["sha256"]:
        raise UserError(
            f"{args.load_weight_dir} was trained on {trained_on['name']}, and the arrays in "
            f"{args.data_dir or 'the download'} are others: name the right --data_dir, or give "
            "--dataset to evaluate on other data all the same"
        )
    return dataset


def summary(args, config, dataset, evaluated):
    """Returns the flat dict that metrics.json holds."""
    import measure

    training = config["training"]
    means = dict.fromkeys(name for name, _ in OPTIONAL) | measure.means(evaluated)
    if training["recon_loss"] != "bce":
        # The sum is the -ELBO of the Bernoulli model alone.
        means["loss_total"] = None
    return {
        **{name: means[name] for name, _ in TABLE + OPTIONAL},
        "nll_samples": args.nll_samples,
        "binarize": training["binarize"],
        "active_units": measure.active_units(evaluated["mu"]),
        "latent_dim": config["architecture"]["latent_dim"],
        "images": len(dataset.test.images),
        "dataset": dataset.name,
        "dataset_sha256": dataset.sha256,
        "trained_on": config["dataset"]["name"],
        "comparable": dataset.sha256 == config["dataset"]["sha256"],
        "weights_sha256": config["weights_sha256"],
        "epochs_done": config["epochs_done"],
        "seed": args.seed,
    }


def print_table(metrics, evaluated):
    """Prints the figures with the standard error of each mean over images."""
    binary = ", one Bernoulli draw of each" if metrics["binarize"] == "dynamic" else ""
    size, name = f"{metrics['images']:,}", metrics["dataset"]
    print(f"{size} test images of {name}{binary}, seed {metrics['seed']}")
    if not metrics["comparable"]:
        print(f"NOT COMPARABLE: these weights were trained on {metrics['trained_on']}.")
    print(f"{'':<14}{'mean':>11}  {'std. error':>10}  unit")
    for name, unit in TABLE + tuple(row for row in OPTIONAL if row[0] in evaluated):
        if metrics[name] is None:
            print(f"{name:<14}{'-':>11}  {'-':>10}  {unit} (not trained on it)")
            continue
        error = evaluated[name].std(ddof=1) / len(evaluated[name]) ** 0.5
        print(f"{name:<14}{metrics[name]:>11.4f}  {error:>10.4f}  {unit}")
    print(f"{'active units':<14}{metrics['active_units']:>11}  of {metrics['latent_dim']}")
    if metrics["nll"] is not None:
        how = "one Bernoulli draw of each image"
        if metrics["binarize"] == "none":
            how += "; these weights were trained on GREY images"
        print(f"nll: {metrics['nll_samples']:,} importance samples, {how}.")


def draw(args, vae, dataset, evaluated, metrics):
    """Draws the two pictures, and those that flags ask for; returns their paths."""
    import numpy as np
    import tensorflow as tf

    import figures
    import loop
    import measure

    images, labels = dataset.test
    of = f"test images of {dataset.name}{'' if metrics['comparable'] else ' (not comparable)'}"
    every = f"{len(images):,} {of}"
    paths = []

    def path(name):
        paths.append(os.path.join(args.output_dir, name))
        return paths[-1]

    def reconstructed(which):
        return loop.as_digits(vae.decode(tf.constant(evaluated["mu"][which]))).numpy()

    def ends(name, count=10):
        order = np.argsort(evaluated[name], kind="stable")
        return order[:count], order[::-1][:count]

    first = np.arange(min(100, len(images)))
    figures.reconstructions(
        path("reconstructions.png"),
        images[first],
        reconstructed(first),
        20,
        f"The first {len(first)} {of}, and decoded z = mu",
    )
    figures.extremes(
        path("extremes.png"),
        [
            (name, images[which], reconstructed(which), evaluated["RMSE_mean"][which])
            for name, which in zip(("best", "worst"), ends("RMSE_mean"), strict=True)
        ],
        f"Best and worst of {every}, with RMSE_mean",
    )
    if args.latent_map:
        draw_latent_map(path("latent_map.png"), evaluated["mu"], labels, every)
    if args.kl_per_unit:
        kld = np.sort(measure.posterior(vae, images)["KLD"])[::-1]
        figures.bars(
            path("kl_per_unit.png"),
            kld,
            f"KL of each latent dimension; bars: means over {every}",
            "latent dimension, sorted",
            "KL, nats",
            metrics["active_units"],
            f"{metrics['active_units']} of {len(kld)} are active",
        )
    if args.outliers:
        values = evaluated["loss_total"]
        groups = zip(("lowest", "highest"), ends("loss_total"), strict=True)
        figures.histogram(
            path("outliers.png"),
            values,
            [(name, images[which], values[which]) for name, which in groups],
            f"-ELBO of {every}; its ends below, with their -ELBO",
            "-ELBO, nats",
            "images",
        )
    return paths


def draw_latent_map(path, mu, labels, every):
    """Draws mu in two dimensions: its own, or the two of largest variance."""
    from sklearn.decomposition import PCA

    import figures

    names = ("mu[0]", "mu[1]")
    points = mu
    if mu.shape[1] != 2:
        pca = PCA(2, svd_solver="full").fit(mu)
        points = pca.transform(mu)
        shares = pca.explained_variance_ratio_
        names = [
            f"principal component {i + 1}, {100 * shares[i]:.0f} % of the variance of mu"
            for i in range(2)
        ]
    figures.latent_map(path, points, labels, f"mu of {every}, by digit", *names)


if __name__ == "__main__":
    sys.exit(main())
