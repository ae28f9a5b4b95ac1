"""Trains a fully connected variational autoencoder on MNIST.

    python train.py                  # MNIST where it can be had, else digits
    python train.py --epoch 5        # rate, batch and warps follow --epoch
    tensorboard --logdir log         # train and validation curves, overlaid

The same command again continues an unfinished run and leaves a finished one
alone.
"""

import signal
import sys
from functools import partial

import data
from support import Interrupted, UserError, cli, console, curves, prior, run_folder, team, weights

# Epochs between two pictures of the same digits in TensorBoard; the last epoch has one, too.
PICTURE_EPOCHS = 5
WAYS_OUT = (
    ": give this run its own --save_weight_dir and --log_dir (with --load_weight_dir it starts "
    "from the other's weights), or --overwrite the other"
)


def add_architecture_flags(parser):
    """Adds the flags that size the network; weights to start from bring their own."""
    group = parser.add_argument_group("architecture")
    add, width = group.add_argument, cli.integer(1, weights.WIDTH_LIMIT)
    inwards = "widths from the image inwards; the decoder mirrors them"
    add("--hidden_units", type=width, nargs="+", default=[512, 256], metavar="N", help=inwards)
    add("--latent_dim", type=width, default=128, help="size of z")
    add("--activation", choices=weights.ACTIVATIONS, default="silu", help="of the hidden layers")


def add_training_flags(parser):
    """Adds the flags that shape the result beside data and architecture."""
    count, amount = cli.integer(1), cli.number(0, 1e6)
    add = parser.add_argument_group("optimizer (AdamW)").add_argument
    add("--epoch", type=cli.integer(1, 100_000), default=100, help="passes over the data")
    add("--batch", type=count, help="images a step (default: 100; 50 for 1 or 2 epochs)")
    add("--limit", type=count, default=None, help="train on the first N images only (default: all)")
    rule = "the highest (default: 0.003, times (100 / epoch)^(1/4), times (batch / 100)^(1/2))"
    add("--learning_rate", type=cli.number(1e-30, 1e6), help=rule)
    falls = "linear: the learning rate falls to 0 at the last step"
    add("--schedule", choices=("linear", "constant"), default="linear", help=falls)
    rise = "epochs in which the learning rate rises; at most a tenth of the run"
    add("--warmup_epochs", type=amount, default=1.0, help=rise)
    memory = "of squared gradients; Adam's usual 0.999 is too long a memory for short runs"
    add("--beta_2", type=cli.number(0, 0.999999), default=0.99, help=memory)
    add("--weight_decay", type=amount, default=0.1, help="of the kernels, decoupled")

    add = parser.add_argument_group("objective").add_argument
    bce_l2 = "reconstruction: the Bernoulli model's cross-entropy, or the L2 norm of the error"
    add("--recon_loss", choices=("bce", "l2"), default="bce", help=bce_l2)
    add("--beta", type=amount, default=1.0, help="weight of the KL term")
    add("--kl_warmup_epochs", type=amount, default=0.5, help="epochs in which --beta rises from 0")
    drawn = "dynamic: train on Bernoulli draws of the grey values, fresh in each step"
    add("--binarize", choices=("none", "dynamic"), default="none", help=drawn)
    add("--elbo_samples", type=cli.integer(1, 1000), default=2, help="draws of z for each image")
    warp = "images are bent by pushes of at most so many pixels, fewer as the rate falls"
    add("--warp", type=cli.number(0, 4), help=f"{warp} (default: 0.8; 0 for 1 or 2 epochs)")


def parser():
    """Returns the parser of this script's flags: the one place where each is stated."""
    parser = cli.Parser("train.py", __doc__)
    cli.add_data_flags(parser, "MNIST where it is available, otherwise the small embedded digits")
    add_architecture_flags(parser)
    add_training_flags(parser)
    add = parser.add_argument_group("devices and machines").add_argument
    shared = "mirrored: all devices here; multi_worker: all machines that TF_CONFIG names"
    add("--strategy", choices=team.STRATEGIES, default="auto", help=shared)
    wait = "seconds that workers wait for each other"
    add("--cluster_timeout", type=cli.number(1e-30, 1e6), default=120.0, help=wait)
    add = parser.add_argument_group("folders and records").add_argument
    add("--save_weight_dir", default="./weight_train", help="the weights, and saves on the way")
    add("--log_dir", default="./log", help="TensorBoard's event files")
    add("--load_weight_dir", default="", help="start a new run from the weights in this folder")
    add("--overwrite", action="store_true", help="start anew: what an earlier run wrote goes")
    add("--log_every", type=cli.integer(1), default=50, help="steps between points of a curve")
    add("--save_every", type=cli.number(0, 1e6), default=30.0, help="seconds between saves")
    return parser


def loss_and_gradients(vae, images, noise, recon_loss, beta):
    """The arithmetic of one step (Kingma and Welling 2014, algorithm 1).

    Args:
        vae: a `model.VAE`.
        images: float32 (batch, 784) in [0, 1].
        noise: standard normal (batch, latent_dim), or (L, batch, latent_dim) for L draws of z.
        recon_loss, beta: as `model.objective` takes them.

    Returns:
        dict of the terms of the loss, each nats per image, with `objective`, the mean that is
        minimized; and its gradients, in the order of `vae.trainable_variables`.
    """
    import tensorflow as tf

    import model

    with tf.GradientTape() as tape:
        mu, log_var = vae.encode(images)
        z = model.reparameterize(mu, log_var, noise)
        terms = model.loss_terms(images, mu, log_var, vae.decode(z))
        terms["objective"] = model.objective(terms, recon_loss, beta)
    return terms, tape.gradient(terms["objective"], vae.trainable_variables)


def update(optimizer, gradients, variables):
    """One step of the optimizer."""
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def adamw(variables, learning_rate, weight_decay=0.0, beta_2=0.999):
    """Returns Keras's AdamW, built, for a rate or a schedule of it: a step takes the share rate *
    weight_decay of each kernel, and of no bias (Loshchilov and Hutter 2019, algorithm 2)."""
    import keras

    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, beta_2=beta_2)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    return optimizer


def recipe(epochs, batch=None, learning_rate=None, warp=None):
    """Returns the batch, the highest learning rate and the push of warps, which follow the length
    of a run unless they are given: a short run wants more steps, and larger ones, and the images
    as they are. Found on validation images, for 1 to 300 epochs."""
    short = epochs <= 2
    batch = batch or (50 if short else 100)
    learning_rate = learning_rate or 3e-3 * (100 / epochs) ** 0.25 * (batch / 100) ** 0.5
    return batch, learning_rate, (0.0 if short else 0.8) if warp is None else warp


def risen(step, rise):
    """The height, at most 1, of a linear rise over `rise` steps, after `step` steps are done."""
    import tensorflow as tf

    return tf.minimum(1.0, (tf.cast(step, tf.float32) + 1) / max(rise, 1))


def learning_rate(peak, schedule, rise, steps):
    """Returns the learning rate as a Keras schedule, a function of the steps that are done.

    Args:
        peak: the highest, after a linear rise of `rise` steps, of which a tenth of all `steps`
            count at most.
        schedule: `linear`: from there it falls to 0 at the last step; `constant`: it stays.
    """
    import keras
    import tensorflow as tf

    rise = min(rise, steps // 10)

    class Rate(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            left = (steps - tf.cast(step, tf.float32)) / max(steps - rise, 1)
            return peak * tf.minimum(risen(step, rise), left if schedule == "linear" else 1.0)

    return Rate()


@cli.script(parser)
def main(args):
    """Flags -> data -> model -> the training step -> the loop over epochs -> curves and weights."""
    machines = team.described(args.strategy)
    chief = not machines or machines[1] == 0
    with cli.explained("--data_dir: " if args.data_dir else f"--dataset {args.dataset}: "):
        dataset = data.load(args.dataset, args.data_dir, args.limit)
    if chief:
        console.announce(dataset)
    images, validation = dataset.train.images, dataset.validation.images
    batch, peak, warp = recipe(args.epoch, args.batch, args.learning_rate, args.warp)
    for flag, count in (("limit", args.limit or 0), ("batch", batch)):
        if count > len(images):
            raise UserError(f"--{flag} {count}: there are only {len(images):,} training images")
    steps = len(images) // batch
    last = args.epoch * steps
    if len(args.hidden_units) > weights.DEPTH_LIMIT:
        raise UserError(f"--hidden_units: {weights.DEPTH_LIMIT} layers at most")
    network = cli.values(args, add_architecture_flags)
    typed = {name: value for name, value in network.items() if name in args.given}
    training = {"seed": args.seed} | cli.values(args, add_training_flags)
    training |= {"batch": batch, "learning_rate": peak, "warp": warp}
    # What a run must agree with to be continued. Weights to start from bring their own network.
    wanted = {
        "dataset": {"name": dataset.name, "sha256": dataset.sha256},
        "architecture": typed if args.load_weight_dir else network,
        "training": training | {"warm_start": bool(args.load_weight_dir)},
    }
    # A fallback never fills the folders of MNIST.
    suffix = "_digits" if dataset.notice else ""
    save_dir = args.save_weight_dir + ("" if "save_weight_dir" in args.given else suffix)
    log_dir = args.log_dir + ("" if "log_dir" in args.given else suffix)
    looks = next_commands(save_dir, log_dir, args.data_dir * ("data_dir" in args.given))
    with cli.explained(after=WAYS_OUT):
        folder = run_folder.RunFolder(save_dir, log_dir, wanted, args.overwrite, chief)
    if folder.finished:
        with folder:
            folder.tidy()
        print(f"{save_dir} holds this run, finished after {args.epoch} epochs: nothing to do.")
        return print(looks)
    with cli.explained("--load_weight_dir: "):
        network = folder.starting_point(args.load_weight_dir, network, typed)
    if chief:
        how = "Starting anew" if args.overwrite else "Continuing" if folder.run else "Starting"
        print(f"{how} in {save_dir}, curves in {log_dir}.")
        print("TensorFlow loads and compiles the training step ...", flush=True)

    joined = team.join(args.strategy, machines, args.cluster_timeout)
    with folder, joined as crew, console.Signals() as signals:
        import keras

        import model
        from support import evaluation, window

        if batch % crew.replicas:
            raise UserError(f"--batch {batch} does not divide by the {crew.replicas} devices")
        keras.utils.set_random_seed(args.seed)
        rate = learning_rate(peak, args.schedule, round(args.warmup_epochs * steps), last)
        with crew.scope():
            vae = model.VAE(**network)
            optimizer = adamw(vae.trainable_variables, rate, args.weight_decay, args.beta_2)
        names = ("objective", *model.TERMS)
        log = curves.Curves(log_dir if chief else None, names, args.log_every)
        step = folder.begin(wanted | {"architecture": network}, vae, optimizer, log.sums, crew)
        if step and chief:
            print(f"Continuing at step {step}, after {step / steps:.4g} of {args.epoch} epochs.")

        binarize = args.binarize == "dynamic"
        if binarize:
            validation = evaluation.binarized(validation, args.seed)
        samples, counter = args.elbo_samples, optimizer.iterations
        # The share of warped images in a step follows the rate.
        warps = warp, lambda step: rate(step) / peak
        draw = window.inputs(images, args.seed, vae.latent_dim, samples, *warps, binarize)

        def arithmetic(images, noise, step):
            beta = args.beta * risen(step, round(args.kl_warmup_epochs * steps))
            return loss_and_gradients(vae, images, noise, args.recon_loss, beta)

        change = partial(update, optimizer, variables=vae.trainable_variables)
        size = window.size(vae, batch, samples)
        train = window.compiled(arithmetic, change, names, draw, counter, size, batch, crew)
        evaluate = evaluation.evaluator(vae, args.seed)

        def leave_if_asked(save=False):
            stop = crew.any(signals.received is not None)
            if save and (stop or step == last or folder.seconds_since_save() > args.save_every):
                log.flush()
                folder.save(step, step // steps, vae, optimizer, log.sums)
            if stop:
                again = "the same command" + args.overwrite * " without --overwrite"
                message = f"interrupted; saved in {save_dir}: {again} continues the run"
                raise Interrupted(message, signals.received or signal.SIGTERM)

        bar = console.Progress(args.epoch, steps, batch, step, chief)
        with log.started(step, folder.run), bar:
            for epoch in range(step // steps, args.epoch):
                order = data.batches(len(images), batch, args.seed, epoch)
                for first in range(step % steps, steps, size):
                    terms = train(order[first : first + size])
                    folder.require_finite(step, terms["objective"])
                    log.train(step, terms, rate)
                    step += len(terms["objective"])
                    bar.update(step, terms["loss_total"][-1])
                    if step % steps:
                        leave_if_asked(save=True)
                validated = evaluation.curves(evaluate(validation), args.recon_loss, args.beta)
                log.scalars("val", step, validated)
                if step == last or epoch % PICTURE_EPOCHS == 0:
                    log.digits(step, evaluation.pictures(vae, validation, args.seed))
                bar.end_epoch(log.end_epoch(steps), validated)
                leave_if_asked(save=True)
            used = evaluation.binarized(images, args.seed) if binarize else images
            if chief:
                print("Fitting a prior to where the encoder puts the training images.")
            known, others = (evaluation.encoded(vae, part) for part in (used, validation))
            fitted = prior.fit(known, dataset.train.labels, others, args.seed, leave_if_asked)
            if chief and fitted[1]["why"]:
                print(f"There is no fitted prior: {fitted[1]['why']}.")
            folder.finish(vae, evaluation.posterior(*known), *fitted)
            crew.wait()
    if chief:
        warning = "\nTHIS IS NOT MNIST: these weights know `digits` alone." * bool(dataset.notice)
        print(f"Finished: weights in {save_dir}, curves in {log_dir}.\n{looks}{warning}")


def next_commands(folder, log_dir, data_dir):
    """Returns the commands that look at a finished run; `data_dir` as it was typed, or empty."""
    flag, data_flag = f"--load_weight_dir {folder}", f" --data_dir {data_dir}" if data_dir else ""
    commands = f"python eval.py {flag}{data_flag}", f"python eval_genresult.py {flag}"
    return "\n      ".join((f"Next: {commands[0]}", commands[1], f"tensorboard --logdir {log_dir}"))


if __name__ == "__main__":
    sys.exit(main())
