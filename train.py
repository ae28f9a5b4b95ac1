"""Trains a fully connected variational autoencoder on MNIST.

    python train.py                        # MNIST where it can be had, else the embedded digits
    python train.py --epoch 5              # the learning-rate schedule follows --epoch
    python train.py --data_dir ~/mnist --save_weight_dir weight_mnist --log_dir log_mnist
    tensorboard --logdir log               # the curves, train and validation overlaid

Running the same command again continues an unfinished run and leaves a finished one alone.
"""

import os
import sys
import time
import uuid

import console
import flags
from flags import UserError

ARCHITECTURE = {"hidden_units": [512, 256], "latent_dim": 128, "activation": "silu"}


def parser():
    """Returns the parser of this script's flags."""
    parser = flags.script_parser("train.py", __doc__)
    group = flags.add_data_flags(parser)
    group.add_argument(
        "--limit",
        type=flags.integer(1),
        default=None,
        help="train on the first N images only, for a quick look",
    )
    # Absent unless given: loaded weights bring their own, which a flag must not contradict.
    group = parser.add_argument_group("architecture", argument_default=flags.ABSENT)
    width = flags.integer(1, flags.WIDTH_LIMIT)
    group.add_argument(
        "--hidden_units",
        type=width,
        nargs="+",
        metavar="N",
        help="widths from the image inwards; the decoder mirrors them (default: 512 256)",
    )
    group.add_argument("--latent_dim", type=width, metavar="N", help="size of z (default: 128)")
    group.add_argument("--activation", choices=flags.ACTIVATIONS, help="(default: silu)")

    group = parser.add_argument_group("objective")
    group.add_argument(
        "--recon_loss",
        choices=flags.RECON_LOSSES,
        default="bce",
        help="reconstruction term: cross-entropy (the Bernoulli model), the L2 norm, or a "
        "Gaussian likelihood at its optimal variance",
    )
    group.add_argument("--beta", type=flags.number(0), default=1.0, help="weight of the KL term")
    group.add_argument(
        "--binarize",
        choices=flags.BINARIZE,
        default="none",
        help="dynamic: train on Bernoulli draws of the grey values, fresh in each epoch",
    )
    group.add_argument(
        "--importance_samples",
        type=flags.integer(1),
        default=1,
        metavar="K",
        help="z drawn for each image: the K-sample bound on log p(x); 1 is the plain ELBO",
    )

    group = parser.add_argument_group("optimizer (AdamW)")
    group.add_argument("--epoch", type=flags.integer(1), default=100, help="passes over the data")
    group.add_argument("--batch", type=flags.integer(1), default=100, help="images a step")
    group.add_argument(
        "--learning_rate", type=flags.number(0, above=True), default=2e-3, help="at its highest"
    )
    group.add_argument(
        "--schedule",
        choices=flags.SCHEDULES,
        default="cosine",
        help="of the learning rate: cosine falls to 0 at the last epoch",
    )
    group.add_argument(
        "--warmup_epochs",
        type=flags.number(0),
        default=1.0,
        help="epochs of linear rise to --learning_rate; with cosine at most a tenth of the run",
    )

    group.add_argument(
        "--weight_decay",
        type=flags.number(0),
        default=0.1,
        help="of the kernels, decoupled: a step takes rate * decay of each away",
    )

    group = parser.add_argument_group("folders and records")
    group.add_argument("--save_weight_dir", default="./weight_train", help="weights, checkpoints")
    group.add_argument("--log_dir", default="./log", help="TensorBoard's event files")
    group.add_argument(
        "--load_weight_dir", default="", help="start a new run from the weights in this folder"
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="start anew: remove what an earlier run wrote to the two folders",
    )
    group.add_argument(
        "--log_every", type=flags.integer(1), default=50, help="steps between points of a curve"
    )
    group.add_argument(
        "--save_every",
        type=flags.number(0),
        default=30.0,
        help="seconds between checkpoints inside a long epoch; every epoch ends with one",
    )
    group.add_argument("--keep", type=flags.integer(1), default=3, help="checkpoints that stay")
    return parser


def main(argv=None):
    """Runs the script with the flags `argv`; returns the exit code."""
    return flags.run_script(parser(), run, argv)


def run(args):
    """Flags -> data -> model -> compiled training loop -> event files and a weights folder."""
    import data
    import logs
    import weights

    if args.importance_samples > 1 and (args.recon_loss != "bce" or args.beta != 1):
        raise UserError(
            f"--importance_samples {args.importance_samples} is a bound on the likelihood of the "
            "Bernoulli model: leave --recon_loss and --beta away"
        )
    warm_config, architecture = warm_start(args)
    dataset = data.load(args.dataset, args.data_dir, args.limit)
    announce(dataset)
    if args.batch > len(dataset.train.images):
        raise UserError(
            f"--batch {args.batch} is more than the {len(dataset.train.images)} training images: "
            "take a smaller batch"
        )
    wanted = configuration(args, architecture, dataset, warm_config)
    folder = weights.TrainingFolder(args.save_weight_dir)
    try:
        config = continue_or_start(folder, wanted, args)
        if config["epochs_done"] >= args.epoch:
            print(
                f"{args.save_weight_dir} holds this run, finished after {args.epoch} epochs: "
                "nothing to do."
            )
            return
        logs.claim(args.log_dir, config["run_id"], args.overwrite)
        if args.overwrite:
            folder.clear()
        folder.sweep()
        folder.write_config(config)
        flags.quiet_tensorflow()
        train(args, config, dataset, folder)
    finally:
        folder.close()
    announce(dataset)


def warm_start(args):
    """Returns the config that `--load_weight_dir` names (or None), and the architecture."""
    import config_file
    import weights

    given = {name: getattr(args, name) for name in ARCHITECTURE if hasattr(args, name)}
    if len(given.get("hidden_units", ())) > flags.DEPTH_LIMIT:
        raise UserError(f"--hidden_units: at most {flags.DEPTH_LIMIT} layers")
    if not args.load_weight_dir:
        return None, ARCHITECTURE | given
    if os.path.realpath(args.load_weight_dir) == os.path.realpath(args.save_weight_dir):
        raise UserError(
            "--load_weight_dir and --save_weight_dir are one folder: a warm start is a new run, "
            "name another --save_weight_dir (to continue a run, leave --load_weight_dir away)"
        )
    config = config_file.read(args.load_weight_dir)
    weights.verified_weights(args.load_weight_dir, config)
    for name, value in given.items():
        loaded = config["architecture"][name]
        if value != loaded:
            raise UserError(
                f"--{name} {flags.spelled(value)} differs from the {flags.spelled(loaded)} of "
                f"--load_weight_dir {args.load_weight_dir}: leave the flag away"
            )
    return config, config["architecture"]


def announce(dataset):
    """Says which data a run is on; a fallback so that nobody can miss it."""
    if dataset.notice:
        bar = "!" * 78
        print(f"{bar}\nTHIS IS NOT MNIST: training on `digits`, 1,797 small embedded digits.")
        print(f"{dataset.notice}\n{bar}")
    sizes = (len(split.images) for split in (dataset.train, dataset.validation, dataset.test))
    print(
        "Data set {}: {:,} training, {:,} validation, {:,} test images.".format(
            dataset.name, *sizes
        )
    )


def configuration(args, architecture, dataset, warm_config):
    """Returns the `config.json` of a new run under these flags."""
    import config_file

    shaping = ("epoch", "batch", "limit", "seed", "recon_loss", "beta", "binarize")
    shaping += ("importance_samples", "learning_rate", "schedule", "warmup_epochs", "weight_decay")
    training = {name: getattr(args, name) for name in shaping}
    training["warm_start_sha256"] = warm_config and warm_config["weights_sha256"]
    return {
        "format_version": config_file.FORMAT_VERSION,
        "run_id": uuid.uuid4().hex,
        "architecture": architecture,
        "dataset": {"name": dataset.name, "sha256": dataset.sha256},
        "training": training,
        "versions": config_file.versions(),
        "epochs_done": 0,
        "posterior": None,
        "variance": None,
        "weights_sha256": None,
    }


def continue_or_start(folder, wanted, args):
    """Decides between a new run, the rest of an unfinished one, and a refusal.

    Returns:
        The config to go on with: `wanted`, or the one in the folder.
    """
    held = None if args.overwrite else folder.config()
    if held is None:
        return wanted
    epochs = held["training"]["epoch"]
    ways_out = "name another --save_weight_dir, or --overwrite it"
    for part in ("dataset", "architecture", "training"):
        for name, value in wanted[part].items():
            if value != held[part][name] and name != "epoch":
                what = f"{part} {name}" if part == "dataset" else f"--{name}"
                raise UserError(
                    f"--save_weight_dir {folder.folder} holds another run: its {what} is "
                    f"{flags.spelled(held[part][name])}, not {flags.spelled(value)}; {ways_out}"
                )
    if args.epoch < epochs or (args.epoch > epochs and args.schedule != "constant"):
        raise UserError(
            f"--save_weight_dir {folder.folder} holds a run of --epoch {epochs}, which --epoch "
            f"{args.epoch} would change from its start: {ways_out}, or start a new run from its "
            "weights with --load_weight_dir"
        )
    unfinished = 0 < held["epochs_done"] < args.epoch
    if unfinished and not folder.newest_checkpoint(held["run_id"])[0]:
        raise UserError(
            f"--save_weight_dir {folder.folder} has no checkpoint to continue from: "
            f"{ways_out}, or start a new run from its weights with --load_weight_dir"
        )
    return held | {"training": wanted["training"]}


def train(args, config, dataset, folder):
    """Builds or restores the run, and trains it to its end."""
    import keras
    import tensorflow as tf

    import logs
    import loop
    import model
    import weights

    keras.utils.set_random_seed(args.seed)
    if args.load_weight_dir:
        _, vae = weights.load_vae(args.load_weight_dir)
    else:
        vae = model.VAE(**config["architecture"])
    images = dataset.train.images
    steps = len(images) // args.batch
    rate = loop.learning_rate(
        args.learning_rate, args.schedule, args.warmup_epochs, args.epoch, steps
    )
    optimizer = loop.adam(vae.trainable_variables, rate, args.weight_decay)
    checkpoint = tf.train.Checkpoint(vae=vae, optimizer=optimizer)
    width = len(loop.ROW)
    state = {"run_id": config["run_id"], "step": 0, "logged": 0}
    state |= {"log_sum": [0.0] * width, "epoch_sum": [0.0] * width}
    prefix, saved = folder.newest_checkpoint(config["run_id"])
    if prefix:
        state = saved
        checkpoint.read(prefix).assert_consumed()
        epoch, done = divmod(state["step"], steps)
        print(f"Continuing {folder.folder} after {epoch} epochs and {done} steps.")
    with flags.disk_errors(f"--log_dir {args.log_dir}"):
        curves = logs.Curves(args.log_dir, state["step"])
        if not prefix:
            curves.text("configuration", as_markdown(config))
    try:
        with console.StopRequest() as stop:
            fit(args, config, dataset, folder, vae, optimizer, checkpoint, state, curves, stop)
    finally:
        with flags.disk_errors(f"--log_dir {args.log_dir}"):
            curves.close()
    print(f"Finished: weights in {args.save_weight_dir}, curves in {args.log_dir}.")


def fit(args, config, dataset, folder, vae, optimizer, checkpoint, state, curves, stop):
    """Trains window by window from `state` to the last epoch; logs, saves and stops in between."""
    import numpy as np

    import data
    import loop
    import model

    images = dataset.train.images
    steps = len(images) // args.batch
    objective = loop.Objective(
        args.recon_loss, args.beta, args.importance_samples, args.binarize == "dynamic"
    )
    window = loop.training_window(vae, optimizer, images, args.batch, args.seed, objective)
    # No steps yet: compiles, so that the speed of the first epoch is that of training.
    window(np.zeros((0, args.batch), np.int32))
    evaluate = loop.evaluation(vae, args.seed, samples=args.importance_samples)
    seen = dataset.validation.images
    if objective.binarize:
        seen = loop.binarized(seen, args.seed)
    saved_at = time.monotonic()

    def require_finite_weights():
        if not all(np.isfinite(weight.numpy()).all() for weight in vae.weights):
            raise not_finite(state["step"])

    def save():
        with flags.disk_errors(f"--log_dir {args.log_dir}"):
            # First the curves: a checkpoint vouches for every point up to its step.
            curves.flush()
        with flags.disk_errors(f"--save_weight_dir {args.save_weight_dir}"):
            folder.save_checkpoint(checkpoint, state, args.keep)

    def not_finite(step):
        prefix, last = folder.newest_checkpoint(config["run_id"])
        kept = f"the checkpoint of step {last['step']} in" if prefix else "no checkpoint in"
        return UserError(
            f"the loss is no longer finite at step {step} (learning rate "
            f"{float(optimizer.learning_rate):.3g}): {kept} {args.save_weight_dir} stays as it "
            "was; try a smaller --learning_rate in another --save_weight_dir",
            flags.EXIT_NOT_FINITE,
        )

    while state["step"] < args.epoch * steps:
        epoch, done = divmod(state["step"], steps)
        order = data.batches(len(images), args.batch, args.seed, epoch)
        progress = console.Progress(epoch + 1, args.epoch, steps, args.batch, done)
        while done < steps:
            rows = window(order[done : done + window.size]).astype(np.float64)
            if not np.isfinite(rows[:, 0]).all():
                raise not_finite(state["step"] + int(np.argmin(np.isfinite(rows[:, 0]))) + 1)
            for row in rows:
                record(args, state, row, curves)
            done += len(rows)
            progress.update(done, rows[-1][loop.ROW.index("loss_total")])
            if done < steps and (stop.signum or time.monotonic() - saved_at > args.save_every):
                require_finite_weights()
                save()
                saved_at = time.monotonic()
            stop.act(args.save_weight_dir, done < steps)
        # The last step's loss is that of the weights before it.
        require_finite_weights()
        trained = dict(zip(loop.ROW, np.array(state["epoch_sum"]) / steps, strict=True))
        state["epoch_sum"] = [0.0] * len(loop.ROW)
        evaluated = evaluate(seen)
        validated = loop.means(evaluated)
        validated["objective"] = float(model.objective(evaluated, args.recon_loss, args.beta))
        with flags.disk_errors(f"--log_dir {args.log_dir}"):
            curves.scalars("val", state["step"], {name: validated[name] for name in loop.ROW})
        progress.finish(trained, validated)
        last = epoch + 1 == args.epoch
        config |= {"epochs_done": epoch + 1}
        # Passes over all training images: worth their time once, at the end.
        config |= summary(vae, images, args) if last else {"posterior": None, "variance": None}
        with flags.disk_errors(f"--save_weight_dir {args.save_weight_dir}"):
            config = folder.write_weights(vae, config)
        save()
        saved_at = time.monotonic()
        stop.act(args.save_weight_dir, not last)


def record(args, state, row, curves):
    """Adds the means of one step to the running sums, and writes a point when one is due."""
    import loop

    state["step"] += 1
    state["logged"] += 1
    for sums in ("epoch_sum", "log_sum"):
        # One by one, in float64: the sums do not depend on where windows begin.
        state[sums] = [a + b for a, b in zip(state[sums], row.tolist(), strict=True)]
    if state["step"] % args.log_every == 0:
        point = [total / state["logged"] for total in state["log_sum"]]
        with flags.disk_errors(f"--log_dir {args.log_dir}"):
            curves.scalars("train", state["step"], dict(zip(loop.ROW, point, strict=True)))
        state |= {"logged": 0, "log_sum": [0.0] * len(loop.ROW)}


def summary(vae, images, args):
    """Returns what config.json tells of a finished run: `posterior`, `variance`."""
    import loop
    import model

    if args.binarize == "dynamic":
        images = loop.binarized(images, args.seed)
    variance = None
    if args.recon_loss == "gaussian":
        l2 = loop.evaluation(vae, args.seed)(images)["loss_l2"]
        variance = float(model.optimal_variance(l2))
    return {"posterior": loop.posterior(vae, images), "variance": variance}


def as_markdown(config):
    """Returns the configuration as a Markdown table, for TensorBoard's text tab."""
    lines = ["| setting | value |", "| --- | --- |"]
    for part in ("dataset", "architecture", "training", "versions"):
        lines += [f"| {name} | {flags.spelled(value)} |" for name, value in config[part].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
