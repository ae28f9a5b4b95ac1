"""Evaluates trained weights on all test images, and draws reconstructions.

    python eval.py                                 # the pretrained weights
    python eval.py --load_weight_dir weight_train  # one's own
    python eval.py --nll_samples 5000              # and -log p(x), binarized
    python eval.py --report                        # a look at the latent space
    python eval.py --images my7.png scans/*.jpg    # one's own pictures

Writes metrics.json, reconstructions.png and extremes.png to --output_dir, and
report.png and own.png where they are asked for. The figures are means over all
test images and do not depend on --batch beyond rounding.
"""

import os
import sys

import numpy as np

import data
from support import UserError, cli, files, layout, pictures, prior, report, weights

# Every figure that may stand in the table, with its unit.
UNITS = {
    "loss_total": "nats, -ELBO",
    "loss_total_fitted": "nats, -ELBO under the fitted prior",
    "loss_bce": "nats",
    "loss_KLD": "nats",
    "loss_l2": "grey",
    "RMSE": "grey, z sampled",
    "RMSE_mean": "grey, z = mu",
    "nll": "nats, of binarized images",
    "nll_fitted": "nats, the same under the fitted prior",
    "prior_accuracy": "share named right by the fitted prior",
    "probe_accuracy": "share named right by a linear classifier",
}
# Digits at each end of a ranking.
ENDS = 10


def parser():
    """Returns the parser of this script's flags."""
    parser = cli.Parser("eval.py", __doc__)
    cli.add_weights_flag(parser)
    add = parser.add_argument
    add("--batch", type=cli.integer(1), default=1000, help="images computed at a time")
    likelihood = "importance samples of nll = -log p(x), binarized images; 5000 as published"
    add("--nll_samples", type=cli.integer(0, 10**6), default=0, metavar="K", help=likelihood)
    look = "a closer look: a map of mu, the KL of each dimension, extremes, a linear classifier"
    add("--report", action="store_true", help=look)
    layout = "how --report lays mu out: t-SNE keeps neighbours, PCA is linear"
    add("--map", choices=("tsne", "pca"), default="tsne", help=layout)
    own = "pictures of one digit each, of any size, dark on light or light on dark"
    add("--images", nargs="+", metavar="FILE", help=own + " (default: none)")
    cli.add_data_flags(parser, "the data that the weights were trained on")
    cli.add_output_flag(parser)
    return parser


@cli.script(parser)
def main(args):
    """Weights folder -> figures on the whole test set -> table, metrics.json and pictures."""
    folder = cli.weights_folder(args)
    run, arrays = weights.read(folder)
    with cli.explained("--images: "):
        own = layout.read(args.images) if args.images else None
    files.writable_folder(args.output_dir)
    dataset = load_dataset(run["dataset"], args.dataset, args.data_dir)
    if dataset.notice and args.report:
        raise UserError(f"--report needs all of MNIST: {dataset.notice}")
    vae = weights.build(run, arrays)
    from support import evaluation

    def seen(images):
        """Images as these weights know them."""
        binary = run["training"]["binarize"] == "dynamic"
        return evaluation.binarized(images, args.seed) if binary else images

    images = seen(dataset.test.images)
    fitted = prior.Mixture(arrays["prior"]) if "prior" in arrays else None
    evaluate = evaluation.evaluator(vae, args.seed, args.batch, fitted)
    figures = evaluate(images)
    if fitted:
        figures["prior_accuracy"] = (figures["named"] == dataset.test.labels).astype(float)
    if args.nll_samples:
        figures |= nll(vae, images, args.nll_samples, args.seed, fitted)
    if args.report:
        mu, _ = evaluation.encoded(vae, seen(dataset.train.images))
        named = report.probed(mu, dataset.train.labels, figures["mu"])
        figures["probe_accuracy"] = (named == dataset.test.labels).astype(float)
    if not np.isfinite(list(evaluation.means(figures).values())).all():
        raise UserError(f"{folder}: the figures of these weights are not finite: train them anew")
    active = prior.active_units(figures["mu"])
    whole = " of 10,000" if dataset.notice else ""
    metrics = evaluation.means(figures) | {
        "nll_samples": args.nll_samples,
        "binarize": run["training"]["binarize"],
        "active_units": len(active),
        "latent_dim": vae.latent_dim,
        "images": len(images),
        "evaluated_on": f"{len(images):,}{whole} test images of {dataset.name}",
        "dataset": dataset.name,
        "dataset_sha256": dataset.sha256,
        "trained_on": run["dataset"]["name"],
        "comparable": dataset.sha256 == run["dataset"]["sha256"] and not dataset.notice,
        "prior": "fitted" if fitted else "standard",
        "finished": run["posterior"] is not None,
        "seed": args.seed,
    }
    metrics |= {name: run[name] for name in ("run_id", "step", "epochs_done")}
    if dataset.notice:
        print(f"MNIST could not be had: {dataset.notice}.")
    print_table(metrics, figures)
    if own:
        shown, laid_out = own
        # One by one: the same picture has the same noise wherever it stands in the list.
        each = [evaluate(seen(image[None])) for image in laid_out]
        theirs = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        metrics["own_images"] = compared(args.images, theirs, figures["loss_total"])
    doubt = "" if metrics["comparable"] else " (not comparable)"
    of = f"{whole} test images of {dataset.name}{doubt}".strip()
    with files.disk_errors(args.output_dir):
        files.write_json(os.path.join(args.output_dir, "metrics.json"), metrics)
        names = draw(args.output_dir, vae, images, figures, of)
        if own:
            names.append("own.png")
            draw_own(os.path.join(args.output_dir, names[-1]), vae, shown, laid_out, theirs)
        if args.report:
            names.append("report.png")
            points, axes = report.flattened(figures["mu"], active, args.map, args.seed)
            whole_plane = fitted and len(active) == vae.latent_dim == 2
            gaussians = fitted.gaussians if whole_plane else ()
            kld = np.array(evaluation.posterior(*evaluation.encoded(vae, images))["KLD"])
            path, what = os.path.join(args.output_dir, names[-1]), f"{len(images):,} {of}"
            labels = dataset.test.labels
            report.draw(path, what, images, labels, figures, points, axes, gaussians, kld, active)
    print(f"Wrote metrics.json, {', '.join(names)} to {args.output_dir}.")


def load_dataset(trained_on, name, data_dir):
    """Returns the data set that weights were trained on, or the other one that was asked for.

    Args:
        trained_on: `dataset` of `run.json`.
        name, data_dir: as `--dataset` and `--data_dir` give them.

    Raises:
        UserError: the weights' own data set cannot be had.
    """
    with cli.explained("--data_dir: " if data_dir or name == "auto" else f"--dataset {name}: "):
        if name != "auto":
            return data.load(name, data_dir)
        name = trained_on["name"]
        if name == "custom" and not data_dir:
            raise UserError("these weights were trained on custom arrays: name them")
        try:
            told = data_dir and name in ("mnist", "custom")
            dataset = data.load("auto" if told else name, data_dir)
        except UserError as error:
            if data_dir or name != "mnist":
                raise
            # Only where the network does not give the whole set.
            dataset = data.carried(str(error))
        if dataset.sha256 != trained_on["sha256"]:
            raise UserError(
                f"{data_dir or 'the download'} holds other arrays than the {trained_on['name']} of "
                f"these weights: name those, or evaluate on others by --dataset {dataset.name}"
            )
    return dataset


def nll(vae, images, samples, seed, fitted):
    """Returns `evaluation.nll` of the test images, binarized, with a bar on a terminal."""
    from keras.utils import Progbar

    from support import evaluation

    bar = Progbar(100, unit_name="percent") if sys.stdout.isatty() else None
    done = bar and (lambda share: bar.update(round(100 * share)))
    return evaluation.nll(vae, evaluation.binarized(images, seed), samples, seed, fitted, done)


def print_table(metrics, figures):
    """Prints the figures with the standard error of each mean over images."""
    binary = ", one Bernoulli draw of each" if metrics["binarize"] == "dynamic" else ""
    print(f"{metrics['evaluated_on']}{binary}, seed {metrics['seed']}")
    if not metrics["comparable"]:
        reason = f"these weights were trained on {metrics['trained_on']}"
        if " of 10,000 " in metrics["evaluated_on"]:
            reason = "these are only the test images that this repository carries"
        print(f"NOT COMPARABLE: {reason}.")
    if metrics["dataset"] == "digits":
        print("THIS IS NOT MNIST: these figures compare with none of MNIST's.")
    if not metrics["finished"]:
        print(f"A run in progress: the weights of step {metrics['step']}.")
    print(f"{'':<18}{'mean':>10}  {'std. error':>10}  unit")
    for name, unit in UNITS.items():
        if name in figures:
            error = figures[name].std(ddof=1) / len(figures[name]) ** 0.5
            print(f"{name:<18}{metrics[name]:>10.4f}  {error:>10.4f}  {unit}")
    print(f"{'active units':<18}{metrics['active_units']:>10}  of {metrics['latent_dim']}")
    if metrics["nll_samples"]:
        how = "one Bernoulli draw of each image"
        if metrics["binarize"] == "none":
            how += "; these weights were trained on GREY images"
        print(f"nll: {metrics['nll_samples']:,} importance samples, {how}.")


def compared(paths, theirs, others):
    """Prints the figures of one's own pictures, and returns them as a list of dicts.

    Args:
        paths: of the pictures.
        theirs: their figures, as `evaluation.evaluator` returns them.
        others: -ELBO of the test images, (n,).
    """
    named = theirs["named"].tolist() if "named" in theirs else [None] * len(paths)
    found = []
    print(f"{'your images':<28}{'loss_total':>11}{'RMSE_mean':>11}{'easier than':>13}  named")
    for i, (path, digit) in enumerate(zip(paths, named, strict=True)):
        elbo, rmse = float(theirs["loss_total"][i]), float(theirs["RMSE_mean"][i])
        worse = float(np.mean(others > elbo))
        found.append({"file": os.path.basename(path), "loss_total": elbo, "RMSE_mean": rmse})
        found[-1] |= {"share_of_test_images_worse": worse, "named": digit}
        name = os.path.basename(path)[-27:]
        known = "-" if digit is None else digit
        print(f"{name:<28}{elbo:>11.2f}{rmse:>11.4f}{100 * worse:>11.0f} %  {known}")
    print("easier than: share of test images with a worse -ELBO; named: by the prior")
    return found


def draw_own(path, vae, shown, laid_out, theirs):
    """Draws one's own pictures as read, laid out, and reconstructed; `theirs` as `compared`."""
    from support import evaluation

    decoded, rows = evaluation.as_digits(vae.decode(theirs["mu"])).numpy(), []
    for part in np.array_split(np.arange(len(decoded)), -(-len(decoded) // 10)):
        texts = [f"{elbo:.0f} nats" for elbo in theirs["loss_total"][part]]
        rows += [("as read", shown[part], ()), ("laid out", laid_out[part], ())]
        rows += [("reconstructed", decoded[part], texts)]
    title = "Your digits, laid out as MNIST's are, decoded from z = mu, with -ELBO"
    pictures.digits(path, title, rows)


def ends(values):
    """Returns the indices of the smallest and of the largest values."""
    order = np.argsort(values, kind="stable")
    return order[:ENDS], order[::-1][:ENDS]


def draw(folder, vae, images, figures, of):
    """Draws reconstructions of the first images, and of the best and the worst; their names.

    Args:
        folder: to write to.
        figures: of the images, as `evaluation.evaluator` returns them.
        of: what the images are, for titles.
    """
    from support import evaluation

    def reconstructed(which):
        return evaluation.as_digits(vae.decode(figures["mu"][which])).numpy()

    first, rows = np.arange(min(100, len(images))), []
    for part in np.array_split(first, -(-len(first) // 20)):
        rows += [("original", images[part], ()), ("reconstructed", reconstructed(part), ())]
    title = f"The first {len(first)} {of}, and decoded z = mu"
    pictures.digits(os.path.join(folder, "reconstructions.png"), title, rows)
    rows = []
    for name, which in zip(("best", "worst"), ends(figures["RMSE_mean"]), strict=True):
        texts = [f"{value:.3f}" for value in figures["RMSE_mean"][which]]
        rows += [(name, images[which], ()), ("reconstructed", reconstructed(which), texts)]
    title = f"Best and worst of {len(images):,} {of}, with RMSE_mean"
    pictures.digits(os.path.join(folder, "extremes.png"), title, rows)
    return ["reconstructions.png", "extremes.png"]


if __name__ == "__main__":
    sys.exit(main())
