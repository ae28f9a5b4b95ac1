"""Trains a fully connected variational autoencoder on MNIST.

    python train.py                        # MNIST where it can be had, else the embedded digits
    python train.py --epoch 5              # the learning-rate schedule follows --epoch
    python train.py --data_dir ~/mnist --save_weight_dir weight_mnist --log_dir log_mnist
    tensorboard --logdir log               # the curves, train and validation overlaid

Running the same command again continues an unfinished run and leaves a finished one alone.
"""

import os
import sys
import uuid

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
        "--elbo_samples",
        type=flags.integer(1, 1000),
        default=flags.ABSENT,
        metavar="L",
        help="z drawn for each image, in antithetic pairs: the ELBO is the mean over them "
        "(default: 2; 1 with --importance_samples)",
    )
    group.add_argument(
        "--importance_samples",
        type=flags.integer(1, 1000),
        default=1,
        metavar="K",
        help="z drawn for each image, in antithetic pairs: the K-sample bound on log p(x); 1 is "
        "the plain ELBO",
    )
    group.add_argument(
        "--warp",
        type=flags.number(0, maximum=1),
        default=0.5,
        help="share of the images that a step sees slightly turned, stretched and moved; falls "
        "with the learning rate",
    )

    group = parser.add_argument_group("optimizer (AdamW)")
    group.add_argument("--epoch", type=flags.integer(1), default=100, help="passes over the data")
    group.add_argument("--batch", type=flags.integer(1), default=100, help="images a step")
    group.add_argument(
        "--learning_rate", type=flags.number(0, above=True), default=3e-3, help="at its highest"
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
        default=0.05,
        help="of the kernels, decoupled: a step takes rate * decay of each away",
    )

    group = parser.add_argument_group("devices and machines")
    group.add_argument(
        "--strategy",
        choices=flags.STRATEGIES,
        default="auto",
        help="one device, mirrored on all of this machine, or multi_worker on all machines that "
        "the environment variable TF_CONFIG names; auto: multi_worker where that is set, else "
        "mirrored where there are several GPUs",
    )
    group.add_argument(
        "--cluster_timeout",
        type=flags.number(0, above=True),
        default=120.0,
        help="seconds that workers wait for each other",
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
    import cluster
    import data
    import logs
    import weights

    if not hasattr(args, "elbo_samples"):
        args.elbo_samples = 2 if args.importance_samples == 1 else 1
    plain = (args.recon_loss, args.beta, args.elbo_samples) == ("bce", 1, 1)
    if args.importance_samples > 1 and not plain:
        raise UserError(
            f"--importance_samples {args.importance_samples} is a bound on the likelihood of the "
            "Bernoulli model: it goes with --recon_loss bce, --beta 1 and --elbo_samples 1 alone"
        )
    machines = cluster.machines(args.strategy, os.environ)
    warm_config, architecture = warm_start(args)
    dataset = data.load(args.dataset, args.data_dir, args.limit)
    announce(dataset)
    if args.batch > len(dataset.train.images):
        raise UserError(
            f"--batch {args.batch} is more than the {len(dataset.train.images)} training images: "
            "take a smaller batch"
        )
    chief = not machines or machines[1] == 0
    wanted = configuration(args, architecture, dataset, warm_config)
    folder = weights.TrainingFolder(args.save_weight_dir, writes=chief)
    try:
        config = continue_or_start(folder, wanted, args)
        if config["epochs_done"] >= args.epoch:
            print(
                f"{args.save_weight_dir} holds this run, finished after {args.epoch} epochs: "
                "nothing to do."
            )
            return
        if chief:
            logs.require_free(args.log_dir, config["run_id"], args.overwrite)
        team = cluster.join(args.strategy, machines, args.cluster_timeout)
        if args.batch % team.replicas:
            raise UserError(
                f"--batch {args.batch} does not divide by the {team.replicas} devices that share "
                "it: take a multiple"
            )
        if chief:
            logs.claim(args.log_dir, config["run_id"], args.overwrite)
            if args.overwrite:
                folder.clear()
            folder.sweep()
            folder.write_config(config)
        import fit

        with team.peers():
            config = agreed(team, folder, config, wanted, args)
            fit.train(args, config, dataset, folder, team)
    finally:
        folder.close()
    if chief:
        announce(dataset)


def agreed(team, folder, config, wanted, args):
    """Returns the config of the run that the chief writes, on every worker.

    Raises:
        UserError: the workers do not see one `--save_weight_dir`, or were given other flags.
    """
    team.wait()
    if not team.chief:
        # What was to be overwritten is, by now.
        args.overwrite = False
        config = continue_or_start(folder, wanted, args)
    team.require_same(
        int(config["run_id"][:12], 16),
        f"--save_weight_dir {folder.folder} is not one folder that all workers see, or one of them "
        "was given other flags: name a shared folder and give all the same flags",
    )
    return config


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

    shaping = ("epoch", "batch", "limit", "seed", "recon_loss", "beta", "warp", "binarize")
    shaping += ("elbo_samples", "importance_samples", "learning_rate", "schedule")
    shaping += ("warmup_epochs", "weight_decay")
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


if __name__ == "__main__":
    sys.exit(main())
