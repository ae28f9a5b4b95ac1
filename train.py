"""Trains a fully connected variational autoencoder, on MNIST by default.

    python train.py                  # MNIST if available, otherwise digits
    python train.py --epoch 5        # other defaults adapt to the shorter run
    tensorboard --logdir log         # training and validation curves, overlaid

Running the same command again (without --overwrite) continues an interrupted
run, and does nothing if the run is finished.
"""

# In this file, from top to bottom: flags, the configuration derived from them, one training step,
# the training loop, and `main`. What surrounds the loop (saves, summaries, progress, signals, other
# workers) is in support/training/run.py.

from __future__ import annotations

import os
import sys

# The modules beside this file are found even if PYTHONSAFEPATH is set.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# First, since it says in one line what is not installed.
import support.installation  # noqa: F401

# isort: split
import argparse
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import data
from support import analysis, cli, display, noise, records, startup, storage, training
from support.errors import OtherRunError, UserError
from support.text import visible

# `--help` and wrong flags must be answered at once, but importing TensorFlow takes seconds. So the
# modules of analysis, display, storage and training are imported when they are first used; those
# that the flags need (`training.workers`) do not import TensorFlow; and the functions of this
# script that need TensorFlow or the model import them themselves.
if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf
    from numpy.typing import NDArray

    import model

# With fewer than SMALL_DATA training images the network overfits. By default such a run keeps the
# weights of its best epoch, and has enough epochs for SMALL_DATA_STEPS steps.
SMALL_DATA = 10_000
SMALL_DATA_STEPS = 10_000
# Short runs with large batches diverge at the larger rates that their lengths would suggest.
LARGEST_LEARNING_RATE = 9e-3
CONFLICT_HINT = (
    ": choose another --save_weight_dir and --log_dir (--load_weight_dir starts a new run from "
    "existing weights), or use --overwrite to replace the existing run"
)


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    flags = cli.Parser("train.py", __doc__)
    cli.add_seed_flag(flags)
    group = cli.add_data_flags(flags, "MNIST if available, otherwise scikit-learn's digits")
    group.add_argument(
        "--digits",
        "--digit",
        nargs="+",
        metavar="D",
        help="train and validate only on images of these digits, or of classes by their names "
        "(default: all)",
    )
    group.add_argument(
        "--limit",
        type=cli.integer(1),
        metavar="N",
        help="use only the first N training images, of --digits if they are given (default: all)",
    )
    add_architecture_flags(flags)
    add_length_flags(flags)
    add_optimizer_flags(flags)
    add_objective_flags(flags)
    add_device_flags(flags)
    add_folder_flags(flags)
    return flags


def add_architecture_flags(flags: cli.Parser) -> None:
    """Adds the flags of the architecture; with `--load_weight_dir`, the weights determine it."""
    group = flags.add_argument_group("architecture")
    group.add_argument(
        "--hidden_units",
        type=cli.integers(1, records.LARGEST_WIDTH),
        nargs="+",
        default=(448, 224, 224, 224),
        metavar="N",
        help="widths of the encoder's hidden layers, in order; the decoder mirrors them",
    )
    group.add_argument(
        "--latent_dim",
        type=cli.integer(1, records.LARGEST_WIDTH),
        default=128,
        metavar="N",
        help="size of the latent vector z",
    )
    group.add_argument(
        "--activation",
        choices=records.ACTIVATIONS,
        default="silu",
        help="activation function of the hidden layers",
    )
    group.add_argument(
        "--residual",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="residual layers: a hidden layer with as many units as the previous hidden layer "
        "returns h + f(h) instead of f(h), where h is the output of the previous one; no effect "
        "where neighbouring widths differ",
    )
    group.add_argument(
        "--initial_weights",
        choices=records.INITIAL_WEIGHTS,
        help="random: as Keras draws them; adapted: the same, but the decoder starts at the mean "
        "training image, and log_var at 0 for every image (default: adapted if --epoch is 1 or 2, "
        "otherwise random)",
    )


def add_length_flags(flags: cli.Parser) -> None:
    """Adds the flags that say how long to train, and which weights to keep."""
    group = flags.add_argument_group("length of the run")
    group.add_argument(
        "--epoch",
        "--epochs",
        dest="epochs",
        type=cli.integer(1, 100_000),
        metavar="N",
        help="passes over the training images (default: 100; with fewer than "
        f"{SMALL_DATA:,} images, enough for {SMALL_DATA_STEPS:,} steps)",
    )
    group.add_argument(
        "--batch",
        "--batch_size",
        dest="batch_size",
        type=cli.integer(1),
        metavar="N",
        help="images per step, on all devices together (default: 100, or 50 if --epoch is 1 or 2, "
        "but at most a tenth of the training images)",
    )
    group.add_argument(
        "--keep",
        choices=("best", "last"),
        help="which epoch's weights to keep: best, those with the lowest objective on the "
        "validation images; last, those of the last epoch (default: last; best with --patience or "
        f"fewer than {SMALL_DATA:,} training images)",
    )
    group.add_argument(
        "--patience",
        type=cli.integer(1),
        metavar="EPOCHS",
        help="stop after this many epochs without improvement on the validation images; implies "
        "--keep best (default: never stop early)",
    )


def add_optimizer_flags(flags: cli.Parser) -> None:
    """Adds the flags of the optimizer and of its learning rate."""
    group = flags.add_argument_group("optimizer")
    group.add_argument(
        "--optimizer",
        choices=records.OPTIMIZERS,
        help="adamw: Adam with decoupled weight decay; nadamw: the same with Nesterov momentum "
        "(default: nadamw if --epoch is 1 or 2, otherwise adamw)",
    )
    group.add_argument(
        "--learning_rate",
        "--lr",
        type=cli.number(cli.ABOVE_ZERO, 1e6),
        metavar="RATE",
        help="peak learning rate (default: 0.003 * (100 / epoch)^(1/4) * (batch / 100)^(1/2), with "
        f"nadamw 4/3 of that, and at most {LARGEST_LEARNING_RATE})",
    )
    group.add_argument(
        "--schedule",
        choices=("linear", "constant"),
        default="linear",
        help="linear: the learning rate decays linearly, towards 0 at the end of the run; "
        "constant: it stays at its peak after the warm-up",
    )
    group.add_argument(
        "--warmup_epochs",
        type=cli.number(0, 1e6),
        default=1.0,
        metavar="N",
        help="epochs over which the learning rate rises from 0 to its peak; never more than a "
        "tenth of the run",
    )
    group.add_argument(
        "--beta_2",
        type=cli.number(0, 0.999999),
        default=0.99,
        help="decay rate of the optimizer's running mean of squared gradients",
    )
    group.add_argument(
        "--weight_decay",
        type=cli.number(0, 1e6),
        default=0.1,
        help="decoupled weight decay, applied to kernels only",
    )


def add_objective_flags(flags: cli.Parser) -> None:
    """Adds the flags that say what is minimized, and on which images."""
    group = flags.add_argument_group("objective")
    group.add_argument(
        "--recon_loss",
        choices=("bce", "l2"),
        default="bce",
        help="reconstruction term: bce, the binary cross-entropy (a Bernoulli decoder); l2, the L2 "
        "norm of the error, which is much smaller and needs a smaller --beta",
    )
    group.add_argument(
        "--beta",
        type=cli.number(0, 1e6),
        help="weight of the KL term; if it is too large for the reconstruction term, the posterior "
        "collapses: z carries no information (default: 1; with --recon_loss l2 "
        f"{analysis.collapse.L2_BETA})",
    )
    group.add_argument(
        "--kl_warmup_epochs",
        type=cli.number(0, 1e6),
        default=0.5,
        metavar="N",
        help="epochs over which the weight of the KL term rises from 0 to --beta",
    )
    group.add_argument(
        "--binarize",
        choices=("none", "dynamic"),
        default="none",
        help="dynamic: train on binary images, resampled at every step with the pixel "
        "intensities as probabilities",
    )
    group.add_argument(
        "--elbo_samples",
        type=cli.integer(1, 1000),
        default=2,
        metavar="N",
        help="samples of z per image; two make an antithetic pair: noise and its negative",
    )
    group.add_argument(
        "--elastic",
        type=cli.number(0, 4),
        metavar="PIXELS",
        help="largest displacement in the elastic distortion of training images; as the learning "
        "rate falls, fewer images are distorted (default: 0 if --epoch is 1 or 2, otherwise 0.8, "
        f"or 1.6 with fewer than {SMALL_DATA:,} images)",
    )


def add_device_flags(flags: cli.Parser) -> None:
    """Adds the flags of the devices and machines that share a run."""
    group = flags.add_argument_group("devices and machines")
    group.add_argument(
        "--strategy",
        choices=training.workers.STRATEGIES,
        default="auto",
        help="one: one device; mirrored: all devices of this machine; multi_worker: all machines "
        "that TF_CONFIG lists; auto: all machines that TF_CONFIG lists if it is set, otherwise all "
        "GPUs",
    )
    group.add_argument(
        "--cluster_timeout",
        type=cli.number(cli.ABOVE_ZERO, 1e6),
        default=120.0,
        metavar="SECONDS",
        help="how long workers wait for each other",
    )


def add_folder_flags(flags: cli.Parser) -> None:
    """Adds the flags that say where a run is stored, and how often it is recorded."""
    group = flags.add_argument_group("folders and records")
    group.add_argument(
        "--save_weight_dir",
        type=cli.path,
        default="./weight_train",
        metavar="FOLDER",
        help="folder for the weights and checkpoints",
    )
    group.add_argument(
        "--log_dir",
        type=cli.path,
        default="./log",
        metavar="FOLDER",
        help="folder for TensorBoard's event files",
    )
    group.add_argument(
        "--load_weight_dir",
        type=cli.path,
        default="",
        metavar="PATH",
        help="start a new run from these weights instead of random ones",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="start again, and replace an earlier run in these folders",
    )
    group.add_argument(
        "--log_every",
        type=cli.integer(1),
        default=50,
        metavar="STEPS",
        help="steps between two points of a training curve",
    )
    group.add_argument(
        "--save_every",
        type=cli.number(0, 1e6),
        default=30.0,
        metavar="SECONDS",
        help="save when this much time has passed since the last save",
    )


def resolve(args: argparse.Namespace, dataset: data.Dataset) -> training.config.Config:
    """Returns the configuration that follows from the flags and the data set.

    Args:
        args: the parsed flags.
        dataset: the data set to train on.

    Raises:
        UserError: a flag does not fit the data set, or another flag.
    """
    images = len(dataset.train.images)
    validate(args, images)
    recipe = default_recipe(args, images)
    steps = recipe.epochs * (images // recipe.batch_size)
    if steps > records.LARGEST_STEP:
        raise UserError(
            f"{recipe.epochs:,} epochs of batches of {recipe.batch_size:,} are {steps:,} steps: "
            f"expected at most {records.LARGEST_STEP:,}; use a smaller --epoch or a larger --batch"
        )
    return training.config.Config(
        architecture=architecture(args),
        training_images=images,
        seed=args.seed,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        limit=args.limit,
        initial_weights=recipe.initial_weights,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        schedule=args.schedule,
        warmup_epochs=args.warmup_epochs,
        beta_2=args.beta_2,
        weight_decay=args.weight_decay,
        recon_loss=args.recon_loss,
        beta=recipe.beta,
        kl_warmup_epochs=args.kl_warmup_epochs,
        binarize=args.binarize,
        elbo_samples=args.elbo_samples,
        elastic=recipe.elastic,
        keep=recipe.keep,
        patience=args.patience,
        warm_start=bool(args.load_weight_dir),
    )


def architecture(args: argparse.Namespace) -> records.Architecture:
    """Returns the network; it is residual only if it has layers that can be."""
    network = records.Architecture(
        tuple(args.hidden_units), args.latent_dim, args.activation, args.residual
    )
    # Given weights determine the widths.
    return network if args.load_weight_dir else network.normalized()


def validate(args: argparse.Namespace, images: int) -> None:
    """Raises a `UserError` if a flag does not fit the number of images, or another flag."""
    if args.limit is not None and args.limit > images:
        raise UserError(
            f"--limit {args.limit}: there are only {images:,} training images: use at most {images}"
        )
    if args.batch_size is not None and args.batch_size > images:
        raise UserError(
            f"--batch {args.batch_size}: there are only {images:,} training images: use at most "
            f"{images}"
        )
    layers = len(args.hidden_units)
    if layers > records.LARGEST_DEPTH:
        raise UserError(
            f"--hidden_units: expected at most {records.LARGEST_DEPTH} layers, got {layers}"
        )
    if args.patience and args.keep == "last":
        raise UserError("--patience cannot be combined with --keep last: leave out one of them")
    if args.epochs is not None and args.kl_warmup_epochs > args.epochs:
        raise UserError(
            f"--kl_warmup_epochs {args.kl_warmup_epochs:g}: the KL term would not reach its full "
            f"weight in --epoch {args.epochs}: use at most {args.epochs}"
        )
    if args.initial_weights and args.load_weight_dir:
        raise UserError(
            "--initial_weights cannot be combined with --load_weight_dir, whose weights the run "
            "starts from: leave out one of them"
        )


class Recipe(NamedTuple):
    """The flags whose defaults depend on the data, the length of the run, or the objective."""

    epochs: int
    batch_size: int
    initial_weights: str
    optimizer: str
    learning_rate: float
    elastic: float
    keep: str
    beta: float


def default_recipe(args: argparse.Namespace, images: int) -> Recipe:
    """Returns these flags as given, or their defaults for this number of training images.

    The defaults were tuned on validation images; bench/EXPERIMENTS.md has the results. A run of
    one or two epochs does better with more and larger steps, with Nesterov momentum, from
    adapted initial weights, and with undistorted images; a run of ten epochs gains from none of
    these.
    """
    small = images < SMALL_DATA
    short = args.epochs is not None and args.epochs <= 2
    batch_size = args.batch_size
    if batch_size is None:
        batch_size = min(50 if short else 100, max(1, images // 10))
    epochs = args.epochs
    if epochs is None:
        epochs = math.ceil(SMALL_DATA_STEPS / (images // batch_size)) if small else 100
    initial_weights = args.initial_weights or ("adapted" if short else "random")
    optimizer = args.optimizer or ("nadamw" if short else "adamw")
    learning_rate = args.learning_rate
    if learning_rate is None:
        peak = 4e-3 if optimizer == "nadamw" else 3e-3
        learning_rate = peak * (100 / epochs) ** 0.25 * (batch_size / 100) ** 0.5
        learning_rate = min(learning_rate, LARGEST_LEARNING_RATE)
    elastic = args.elastic
    if elastic is None and short:
        elastic = 0.0
    elif elastic is None:
        elastic = 1.6 if small else 0.8
    keep = args.keep
    if keep is None:
        keep = "best" if small or args.patience else "last"
    beta = args.beta
    if beta is None:
        # The L2 norm is so small that with a weight of 1 the posterior collapses.
        beta = analysis.collapse.L2_BETA if args.recon_loss == "l2" else 1.0
    return Recipe(
        epochs, batch_size, initial_weights, optimizer, learning_rate, elastic, keep, beta
    )


def loss_and_gradients(
    vae: model.VAE,
    images: tf.Tensor,
    noise: tf.Tensor,
    recon_loss: str,
    beta: float | tf.Tensor,
) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
    """Computes the loss of one step and its gradients (Kingma and Welling 2014, algorithm 1).

    Args:
        vae: a `model.VAE`.
        images: float32 (batch, 784) in [0, 1].
        noise: standard normal (batch, latent_dim), or (L, batch, latent_dim) for L samples of
            z.
        recon_loss, beta: see `model.objective`.

    Returns:
        A dict of the terms that `model.loss_terms` returns and of `objective`, the mean that is
        minimized; and the gradients of `objective`, in the order of `vae.trainable_variables`.
    """
    import tensorflow as tf

    import model

    with tf.GradientTape() as tape:
        mu, log_var = vae.encode(images)
        z = model.reparameterize(mu, log_var, noise)
        terms = model.loss_terms(images, mu, log_var, vae.decode(z))
        terms["objective"] = model.objective(terms, recon_loss, beta)
    return terms, tape.gradient(terms["objective"], vae.trainable_variables)


class TrainingStep:
    """One training step, in three parts: its random inputs, its gradients, its update.

    `training.steps` compiles it into a loop over several steps: for a model this small, the
    overhead of Python at every step would take as much time as the arithmetic.

    The random parts of a step are the choice of its images (`data.batches` draws a new order for
    each epoch), their elastic distortion, their Bernoulli samples if it trains on these, and the
    noise from which z is computed. All of them come from support/noise.py, as functions of the seed
    and of the number of the epoch or step. Keras draws the initial weights (`build`).

    If several devices share a run, `training.steps` gives each of them its part of a batch and of
    the noise, and averages their gradients.

    Args:
        config: the run's configuration.
        images: uint8 (n, 784), all training images.
        vae: a `model.VAE`.
        optimizer: the optimizer of the VAE's weights.
        learning_rate: the learning rate as a function of the number of steps done.
    """

    def __init__(
        self,
        config: training.config.Config,
        images: np.ndarray,
        vae: model.VAE,
        optimizer: keras.optimizers.Optimizer,
        learning_rate: training.schedule.LearningRate,
    ) -> None:
        import tensorflow as tf

        self.config, self.vae, self.optimizer = config, vae, optimizer
        self.learning_rate = learning_rate
        self.images = tf.constant(images)

    @property
    def done(self) -> keras.Variable:
        """How many steps of the run are done; each update adds one."""
        return self.optimizer.iterations

    def inputs(self, indices: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Gathers the images of several steps, and draws their random numbers.

        Args:
            indices: which training images each step gets, int32 (steps, batch).
            steps: the number of each step in the run, int32 (steps,).

        Returns:
            Images, float32 (steps, batch, 784) in [0, 1]; standard normal noise,
            float32 (steps, elbo_samples, batch, latent_dim).
        """
        import tensorflow as tf

        config, seed = self.config, self.config.seed
        images = data.to_float(tf.gather(self.images, indices))
        if config.elastic:
            share = noise.for_each_step(self.distorted_share, steps)
            images = training.augmentation.elastic(images, config.elastic, share, seed, steps)
        if config.trains_on_binary_images:
            images = training.augmentation.bernoulli(images, seed, steps)
        drawn = noise.for_each_step(self.normal_noise, steps)
        return images, drawn

    def distorted_share(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the fraction of images that are distorted at a step.

        It is proportional to the learning rate: it rises during the warm-up and then falls with it,
        so that a run ends on undistorted images, like those of validation. If the learning rate
        stays constant, so does the fraction.
        """
        return self.learning_rate.share_of_peak(step)

    def normal_noise(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the noise of a step, float32 (elbo_samples, batch, latent_dim)."""
        config = self.config
        shape = [config.batch_size, config.architecture.latent_dim]
        return noise.antithetic_normal(
            shape, config.elbo_samples, config.seed, noise.TRAINING, step
        )

    def gradients(
        self, images: tf.Tensor, drawn: tf.Tensor, step: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns what `loss_and_gradients` returns for one step.

        Args:
            images: float32 (batch, 784).
            drawn: standard normal noise, float32 (elbo_samples, batch, latent_dim).
            step: the number of the step in the run, counted from 0. It determines the weight of
                the KL term, which rises linearly and is above 0 already at step 0.
        """
        config = self.config
        warmup_steps = config.steps_in(config.kl_warmup_epochs)
        beta = config.beta * training.schedule.linear_warmup(step, warmup_steps)
        return loss_and_gradients(self.vae, images, drawn, config.recon_loss, beta)

    def update(self, gradients: Sequence[tf.Tensor]) -> None:
        """Updates the weights by one step of the optimizer."""
        variables = self.vae.trainable_variables
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))


def build(
    config: training.config.Config, images: NDArray[np.uint8], workers: training.workers.Workers
) -> tuple[model.VAE, keras.optimizers.Optimizer, training.schedule.LearningRate]:
    """Returns the model with its initial weights, its optimizer, and the learning rate.

    Args:
        config: the run's configuration.
        images: the training images, uint8 (n, 784).
        workers: the workers on whose devices the weights are created.
    """
    import keras

    import model

    # For the initial weights; all other random numbers come from support/noise.py.
    keras.utils.set_random_seed(config.seed)
    learning_rate = training.schedule.LearningRate(
        config.learning_rate,
        config.schedule,
        config.steps_in(config.warmup_epochs),  # limited there to a tenth of the run
        config.total_steps,
    )
    with workers.scope():
        vae = model.VAE(**config.architecture._asdict())
        if config.initial_weights == "adapted":
            vae.adapt_initial_weights(images.mean(axis=0) / 255)
        optimizer = training.optimizer.build(
            config.optimizer,
            vae.trainable_variables,
            learning_rate,
            config.weight_decay,
            config.beta_2,
        )
    return vae, optimizer, learning_rate


def train(
    config: training.config.Config, dataset: data.Dataset, run: training.run.Run
) -> tuple[model.VAE, analysis.metrics.Figures]:
    """Runs the training loop: epochs of batches, several steps per call.

    The run is saved before its first step, whenever `--save_every` seconds have passed, and after
    its last step; a save is one file with the weights, the state of the optimizer and the number of
    steps done.

    Ctrl-C only sets a flag: `run.after_steps` sees it when the steps of the current call are done,
    saves, and raises `Interrupted`, which ends the script with exit code 130. If the process is
    killed, the newest save remains.

    Running the same command again loads that save and continues in the middle of the epoch:
    `run.remaining` skips the batches that are done. The results are bit-identical to those of a run
    that was never interrupted, since each random number depends only on the seed and on the number
    of its epoch or step.

    Args:
        config: the run's configuration.
        dataset: the data set to train and validate on.
        run: takes care of saves, summaries, progress, signals and other workers.

    Returns:
        The trained model, and its metrics on the validation images.
    """
    images = dataset.train.images
    vae, optimizer, learning_rate = build(config, images, run.workers)
    run.start_or_resume(vae, optimizer, learning_rate)

    training_step = TrainingStep(config, images, vae, optimizer, learning_rate)
    # As many as fit into a limited amount of memory and a fraction of a second.
    steps_per_call = training.steps.most_steps_per_call(vae, config.batch_size, config.elbo_samples)
    train_steps = training.steps.compile_steps(
        training_step, training.run.TERM_NAMES, run.workers, steps_per_call, config.batch_size
    )
    evaluate = analysis.metrics.Evaluator(vae, config.seed)
    # Unchanged, or one fixed Bernoulli sample of each image if training is on such samples.
    validation = config.evaluation_images(dataset.validation.images)
    figures = None
    for epoch in range(run.epoch, config.epochs):
        if run.ended_early:
            break
        batches = data.batches(len(images), config.batch_size, config.seed, epoch)
        for indices in run.remaining(batches, steps_per_call):  # of images, (steps, batch)
            losses = train_steps(indices)
            run.after_steps(losses)  # fails if one is not finite; summaries, saves, Ctrl-C
        # All validation images, undistorted, with one sample of z each; the noise never changes.
        figures = evaluate(validation)
        # Summaries, a save if one is due, Ctrl-C; with `--keep best`, remembers the best weights.
        point = analysis.metrics.curve_point(figures, config.recon_loss, config.beta)
        run.after_epoch(point, figures.encoded)
    if run.select_weights() or figures is None:
        figures = evaluate(validation)  # of other weights than those of the last epoch
    return vae, figures


def fit_prior_and_finish(
    config: training.config.Config,
    dataset: data.Dataset,
    vae: model.VAE,
    validated: analysis.metrics.Figures,
    run: training.run.Run,
) -> records.RunRecord:
    """Fits the prior to the encoded training images, and writes the finished weights.

    Args:
        config: the run's configuration.
        dataset: the data set that the model was trained on.
        vae: the trained model.
        validated: its metrics on the validation images.
        run: the run, after its last step.

    Returns:
        The record of the finished run.
    """
    if run.workers.chief:
        print("Fitting a prior to the encoded training images ...", flush=True)
    encoded = analysis.metrics.encode(vae, config.evaluation_images(dataset.train.images))
    prior, prior_record = analysis.fitted_prior.fit(
        encoded,
        dataset.train.labels,
        validated.encoded,
        config.seed,
        before_each_class=run.leave_if_interrupted,
    )
    if prior is not None:
        mixture = analysis.fitted_prior.Mixture(prior)
        validated = analysis.metrics.with_prior(validated, mixture, config.seed)
        validated.add_prior_accuracy(dataset.validation.labels)
    elif run.workers.chief:
        print(
            f"There is no fitted prior: {prior_record.reason}. So digits will be sampled from "
            "N(0, I), not by class (--digit), and no image can be classified."
        )
    active_units = len(analysis.fitted_prior.active_units(validated.mu))
    result = validated.means() | {"active_units": active_units}
    record = run.finish(analysis.metrics.posterior(*encoded), prior, prior_record, result)
    if run.workers.chief:
        print(
            f"{len(validated.mu):,} VALIDATION images of {dataset.name}, weights of epoch "
            f"{record.kept_epoch}, seed {config.seed}"
        )
        display.metrics_table.print_metrics(validated, active_units)
    return record


def load_data(args: argparse.Namespace) -> data.Dataset:
    """Loads the data set that the flags select."""
    path = cli.data_dir(args, args.dataset)
    with cli.error_context("--data_dir: " if path else f"--dataset {args.dataset}: "):
        return data.load(args.dataset, path, args.limit, args.transpose, args.digits or ())


def open_folder(
    args: argparse.Namespace, config: training.config.Config, dataset: data.Dataset, chief: bool
) -> storage.run_folder.RunFolder:
    """Returns the folders of the run.

    Args:
        args: the parsed flags.
        config: the configuration that a run in the folders must have to be continued.
        dataset: the data set that it must have been trained on.
        chief: whether this process is the one that writes.

    Raises:
        UserError: the folders hold another run.
    """
    weights, log = folder_names(args, dataset)
    identity = config.identity(dataset, given=args.given)
    try:
        folder = storage.run_folder.RunFolder(weights, log, identity, args.overwrite, writes=chief)
    except OtherRunError as error:
        hint = longer_run_hint(args, identity, weights, log) or CONFLICT_HINT
        raise OtherRunError(f"{error}{hint}") from error
    # If the folder already holds a save of this run, that is continued instead.
    if args.load_weight_dir:
        with cli.error_context("--load_weight_dir: "):
            folder.start_from(args.load_weight_dir)
    return folder


def places(folder: storage.run_folder.RunFolder) -> str:
    """Returns where a run is stored, for messages."""
    return f"weights in {visible(folder.path)}, event files in {visible(folder.log_dir)}"


def folder_names(args: argparse.Namespace, dataset: data.Dataset) -> tuple[str, str]:
    """Returns the folders of the weights and of the event files."""
    weights, log = args.save_weight_dir, args.log_dir
    # `args.given` holds the flags that the user typed. The fallback data set has its own default
    # folders.
    if dataset.fallback_reason and "save_weight_dir" not in args.given:
        weights += "_digits"
    if dataset.fallback_reason and "log_dir" not in args.given:
        log += "_digits"
    return weights, log


def configuration(args: argparse.Namespace, dataset: data.Dataset) -> training.config.Config:
    """Returns what `resolve` returns, or what it returned when the run in the folder began."""
    config = resolve(args, dataset)
    weights, _ = folder_names(args, dataset)
    if "overwrite" in args.given or not os.path.isdir(weights):
        return config
    record = storage.weights.read_record(weights)
    if record is not None and storage.run_folder.is_of_earlier_version(record):
        return training.earlier.with_earlier_defaults(config, args.given)
    return config


def longer_run_hint(
    args: argparse.Namespace, identity: storage.run_folder.Identity, weights: str, log: str
) -> str:
    """Returns what to do if a finished run is to be made longer; empty if that is not the conflict.

    Args:
        args: the parsed flags.
        identity: the identity of the longer run.
        weights, log: the folders.
    """
    record = storage.weights.read_record(weights)
    if record is None or not record.finished or "epochs" not in args.given:
        return ""
    more = args.epochs - record.epochs_done
    # The length, and what follows from it by default, may differ from the finished run.
    by_length = {"epochs", *Recipe._fields} - (args.given - {"epochs"})
    held = storage.run_folder.identity_of(record).training
    same = {name: held.get(name) for name in by_length}
    wanted = identity._replace(training=dict(identity.training) | same)
    try:
        storage.run_folder.require_same(record, wanted, weights)
    except OtherRunError:
        return ""
    if more < 1:
        return ""
    command = parser().command(
        args,
        epochs=more,
        load_weight_dir=weights,
        save_weight_dir=unused(weights),
        log_dir=unused(log),
        overwrite=None,
    )
    return (
        f". A finished run is not made longer, since its learning rate has followed a schedule of "
        f"{record.training['epochs']} epochs. To train for {more} more from its weights, in new "
        f"folders, with a new optimizer and a new schedule: {command}"
    )


def unused(folder: str) -> str:
    """Returns a name of a new folder: that of `folder` with the first number that is free."""
    base = os.path.normpath(folder)
    numbers = itertools.count(2)
    return next(name for n in numbers if not os.path.lexists(name := f"{base}_{n}"))


def next_commands(args: argparse.Namespace, folder: storage.run_folder.RunFolder) -> str:
    """Returns the commands to evaluate and view a finished run, ready to be typed."""
    weights = f"--load_weight_dir {cli.as_argument(folder.path)}"
    data_flags = f" --data_dir {cli.as_argument(args.data_dir)}" if args.data_dir else ""
    if args.transpose is not None:
        data_flags += " --transpose" if args.transpose else " --no-transpose"
    return "\n".join(
        (
            f"Next: {cli.script_command('eval.py')} {weights}{data_flags}",
            f"      {cli.script_command('eval_genresult.py')} {weights}",
            f"      tensorboard --logdir {cli.as_argument(folder.log_dir)}",
        )
    )


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Flags -> data -> configuration -> folders -> training loop -> fitted prior -> weights."""
    cluster = training.rendezvous.from_environment(args.strategy)
    chief = cluster is None or cluster.index == 0
    dataset = load_data(args)
    if chief:
        display.progress.announce(dataset)
    config = configuration(args, dataset)
    folder = open_folder(args, config, dataset, chief)
    if folder.finished:
        # Every worker says so, since all of them stop here.
        folder.report_finished()
        if folder.record is not None:
            analysis.collapse.print_notice(folder.record)
        print(next_commands(args, folder))
        return
    # A run to continue and weights to start from determine the architecture.
    config = dataclasses.replace(config, architecture=folder.architecture or config.architecture)
    if chief:
        print(f"{folder.action}: {places(folder)}.")
        print("Importing TensorFlow ...", flush=True)
    with folder, training.workers.join(args.strategy, cluster, args.cluster_timeout) as workers:
        run = training.run.Run(config, dataset, folder, workers, args.log_every, args.save_every)
        with run:
            if chief:
                print(startup.describe_devices())
                print(display.progress.sizes(dataset))
                print("\n".join(config.describe(args.given)))
                print("Compiling the training step ...", flush=True)
            vae, validated = train(config, dataset, run)
            record = fit_prior_and_finish(config, dataset, vae, validated, run)
    if chief:
        analysis.collapse.print_notice(record)
        print(f"Finished: {places(folder)}.")
        print(next_commands(args, folder))
        if dataset.fallback_reason:
            print("THIS IS NOT MNIST: these weights were trained only on `digits`.")


if __name__ == "__main__":
    cli.end_process(main())
