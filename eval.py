"""Evaluates trained weights on the whole test set, with pictures of reconstructions.

    python eval.py                                   # the pretrained weights, on MNIST
    python eval.py --load_weight_dir weight_train    # one's own
    python eval.py --nll_samples 5000                # and -log p(x), on binarized images

Writes metrics.json, reconstructions.png and extremes.png to --output_dir. The figures are means
over all test images and do not depend on --batch beyond rounding.
"""

import os
import sys

import flags
from flags import UserError

ACTIVE_VARIANCE = 0.01
PICTURES = ("reconstructions.png", "extremes.png")
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
    if args.nll_samples and training["recon_loss"] != "bce":
        raise UserError(
            f"--nll_samples: {args.load_weight_dir} was trained with --recon_loss "
            f"{training['recon_loss']}, which is no likelihood of binary images: leave it away"
        )
    flags.writable_folder(args.output_dir, "--output_dir")
    if args.show:
        import figures

        figures.require_screen()
    dataset = load_dataset(args, config)
    config, vae = weights.load_vae(args.load_weight_dir)

    import loop
    import model

    if training["binarize"] == "dynamic":
        binary = dataset.test._replace(images=loop.binarized(dataset.test.images, args.seed))
        dataset = dataset._replace(test=binary)
    evaluated = loop.evaluation(vae, args.seed, args.batch)(dataset.test.images)
    if config["variance"]:
        evaluated["loss_gaussian"] = model.loss_gaussian(
            evaluated["loss_l2"], config["variance"]
        ).numpy()
    if args.nll_samples:
        evaluated["nll"] = nll(vae, dataset.test.images, args)
    metrics = summary(args, config, dataset, evaluated)
    print_table(metrics, evaluated)
    with flags.disk_errors(f"--output_dir {args.output_dir}"):
        flags.write_json(os.path.join(args.output_dir, "metrics.json"), metrics)
        draw(args, vae, dataset, evaluated, metrics["comparable"])
    print(f"Wrote metrics.json, {' and '.join(PICTURES)} to {args.output_dir}.")
    if args.show:
        figures.show(os.path.join(args.output_dir, name) for name in PICTURES)


def nll(vae, images, args):
    """Returns `loop.nll` of the test images, binarized, with a bar on a terminal."""
    from keras.utils import Progbar

    import loop

    bar = Progbar(100, unit_name="percent") if sys.stdout.isatty() else None
    done = bar and (lambda share: bar.update(round(100 * share)))
    return loop.nll(vae, loop.binarized(images, args.seed), args.nll_samples, args.seed, done)


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
    import loop

    training = config["training"]
    means = dict.fromkeys(name for name, _ in OPTIONAL) | loop.means(evaluated)
    if training["recon_loss"] != "bce":
        # The sum is the -ELBO of the Bernoulli model alone.
        means["loss_total"] = None
    return {
        **{name: means[name] for name, _ in TABLE + OPTIONAL},
        "nll_samples": args.nll_samples,
        "binarize": training["binarize"],
        "active_units": int((evaluated["mu"].var(axis=0) > ACTIVE_VARIANCE).sum()),
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
    print(f"{'':<13}{'mean':>10}  {'std. error':>10}  unit")
    for name, unit in TABLE + tuple(row for row in OPTIONAL if row[0] in evaluated):
        if metrics[name] is None:
            print(f"{name:<13}{'-':>10}  {'-':>10}  {unit} (not trained on it)")
            continue
        error = evaluated[name].std(ddof=1) / len(evaluated[name]) ** 0.5
        print(f"{name:<13}{metrics[name]:>10.4f}  {error:>10.4f}  {unit}")
    print(f"{'active units':<13}{metrics['active_units']:>10}  of {metrics['latent_dim']}")
    if metrics["nll"] is not None:
        how = "one Bernoulli draw of each image"
        if metrics["binarize"] == "none":
            how += "; these weights were trained on GREY images"
        print(f"nll: {metrics['nll_samples']:,} importance samples, {how}.")


def draw(args, vae, dataset, evaluated, comparable):
    """Draws the two pictures."""
    import numpy as np
    import tensorflow as tf

    import figures

    images = dataset.test.images

    def reconstructed(which):
        logits = vae.decode(tf.constant(evaluated["mu"][which]))
        return np.rint(tf.sigmoid(logits).numpy() * 255).astype(np.uint8)

    marked = "" if comparable else " (not comparable)"
    first = np.arange(min(100, len(images)))
    order = np.argsort(evaluated["RMSE_mean"], kind="stable")
    groups = [
        (name, images[which], reconstructed(which), evaluated["RMSE_mean"][which])
        for name, which in (("best", order[:10]), ("worst", order[::-1][:10]))
    ]
    paths = [os.path.join(args.output_dir, name) for name in PICTURES]
    figures.reconstructions(
        paths[0],
        images[first],
        reconstructed(first),
        20,
        f"The first {len(first)} test images of {dataset.name}{marked}, and decoded z = mu",
    )
    figures.extremes(
        paths[1],
        groups,
        f"Best and worst of {len(images):,} test images of {dataset.name}{marked}, with RMSE_mean",
    )


if __name__ == "__main__":
    sys.exit(main())
