"""Trains a fully connected variational autoencoder on MNIST.

    python train.py                  # MNIST where it is available, else digits
    python train.py --epoch 5        # batch, learning rate and distortion follow
    tensorboard --logdir log         # train and validation curves, overlaid

The same command again continues an unfinished run and leaves a finished one
alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

import data
from support import analysis, cli, display, noise, records, storage, training
from support.errors import UserError

# Modules of the packages above are imported when they are first used, and TensorFlow with them:
# by then all flags have been checked, and `--help` has answered. Functions of this script that
# need TensorFlow or the model import it themselves.
if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    import model

WAYS_OUT = (
    ": give this run its own --save_weight_dir and --log_dir (with --load_weight_dir it starts "
    "from the other's weights), or replace the other by --overwrite"
)


def parser() -> cli.Parser:
    """Returns the parser of this script's flags."""
    parser = cli.Parser("train.py", __doc__)
    cli.add_seed_flag(parser)
    cli.add_data_flags(parser, "MNIST where it is available, otherwise scikit-learn's small digits")

    group = parser.add_argument_group("architecture")
    group.add_argument(
        "--hidden_units",
        type=cli.integer(1, records.LARGEST_WIDTH),
        nargs="+",
        default=[512, 256],
        metavar="N",
        help="widths of the encoder's hidden layers, from the image inwards; the decoder mirrors "
        "them",
    )
    group.add_argument(
        "--latent_dim",
        type=cli.integer(1, records.LARGEST_WIDTH),
        default=128,
        metavar="N",
        help="size of z",
    )
    group.add_argument(
        "--activation",
        choices=records.ACTIVATIONS,
        default="silu",
        help="of the hidden layers",
    )

    group = parser.add_argument_group("optimizer (AdamW)")
    group.add_argument(
        "--epoch",
        "--epochs",
        dest="epochs",
        type=cli.integer(1, 100_000),
        default=100,
        metavar="N",
        help="passes over the training images",
    )
    group.add_argument(
        "--batch",
        "--batch_size",
        dest="batch_size",
        type=cli.integer(1),
        metavar="N",
        help="images a step, over all devices (default: 100; 50 for 1 or 2 epochs)",
    )
    group.add_argument(
        "--limit",
        type=cli.integer(1),
        metavar="N",
        help="train on the first N images only (default: all)",
    )
    group.add_argument(
        "--learning_rate",
        "--lr",
        type=cli.number(1e-30, 1e6),
        metavar="RATE",
        help="the highest (default: 0.003, times (100 / epoch)^(1/4), times (batch / 100)^(1/2))",
    )
    group.add_argument(
        "--schedule",
        choices=("linear", "constant"),
        default="linear",
        help="linear: the learning rate falls to 0 at the last step",
    )
    group.add_argument(
        "--warmup_epochs",
        type=cli.number(0, 1e6),
        default=1.0,
        metavar="N",
        help="epochs in which the learning rate rises from 0; a tenth of the run at most",
    )
    group.add_argument(
        "--beta_2",
        type=cli.number(0, 0.999999),
        default=0.99,
        help="decay rate of the mean of squared gradients; Adam's usual 0.999 averages over too "
        "many steps for short runs",
    )
    group.add_argument(
        "--weight_decay",
        type=cli.number(0, 1e6),
        default=0.1,
        help="of kernels, not of biases; decoupled from the gradients",
    )

    group = parser.add_argument_group("objective")
    group.add_argument(
        "--recon_loss",
        choices=("bce", "l2"),
        default="bce",
        help="reconstruction: the Bernoulli model's cross-entropy, or the L2 norm of the error",
    )
    group.add_argument("--beta", type=cli.number(0, 1e6), default=1.0, help="weight of the KL term")
    group.add_argument(
        "--kl_warmup_epochs",
        type=cli.number(0, 1e6),
        default=0.5,
        metavar="N",
        help="epochs in which the weight of the KL term rises from 0 to --beta",
    )
    group.add_argument(
        "--binarize",
        choices=("none", "dynamic"),
        default="none",
        help="dynamic: train on Bernoulli samples of the grey values, new ones in each step",
    )
    group.add_argument(
        "--elbo_samples",
        type=cli.integer(1, 1000),
        default=2,
        metavar="N",
        help="samples of z for each image",
    )
    group.add_argument(
        "--elastic",
        type=cli.number(0, 4),
        metavar="PIXELS",
        help="elastic distortion: the largest displacement at each of its grid points; fewer "
        "images are distorted as the learning rate falls (default: 0.8; 0 for 1 or 2 epochs)",
    )

    group = parser.add_argument_group("devices and machines")
    group.add_argument(
        "--strategy",
        choices=training.distribution.STRATEGIES,
        default="auto",
        help="mirrored: all devices of this machine; multi_worker: all machines that TF_CONFIG "
        "names",
    )
    group.add_argument(
        "--cluster_timeout",
        type=cli.number(1e-30, 1e6),
        default=120.0,
        metavar="SECONDS",
        help="how long workers wait for each other",
    )

    group = parser.add_argument_group("folders and records")
    group.add_argument(
        "--save_weight_dir",
        default="./weight_train",
        metavar="FOLDER",
        help="for the weights, and for saves on the way",
    )
    group.add_argument(
        "--log_dir", default="./log", metavar="FOLDER", help="for TensorBoard's event files"
    )
    group.add_argument(
        "--load_weight_dir",
        default="",
        metavar="PATH",
        help="start a new run from these weights, instead of random ones",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="start again, and remove what an earlier run wrote into these folders",
    )
    group.add_argument(
        "--log_every",
        type=cli.integer(1),
        default=50,
        metavar="STEPS",
        help="steps between points of a train curve",
    )
    group.add_argument(
        "--save_every",
        type=cli.number(0, 1e6),
        default=30.0,
        metavar="SECONDS",
        help="seconds between saves",
    )
    return parser


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the result of a run: the flags, with every default resolved.

    All but the first two are recorded in `run.json`, and compared when a run continues.

    Attributes:
        architecture: the network.
        training_images: how many there are.
        others: as the flag of that name.
        warm_start: whether the run starts from given weights.
    """

    architecture: records.Architecture
    training_images: int
    seed: int
    epochs: int
    batch_size: int
    limit: int | None
    learning_rate: float
    schedule: str
    warmup_epochs: float
    beta_2: float
    weight_decay: float
    recon_loss: str
    beta: float
    kl_warmup_epochs: float
    binarize: str
    elbo_samples: int
    elastic: float
    warm_start: bool

    @property
    def steps_per_epoch(self) -> int:
        """How many whole batches the training images make."""
        return self.training_images // self.batch_size

    @property
    def total_steps(self) -> int:
        """How many steps the run has."""
        return self.epochs * self.steps_per_epoch

    def steps_in(self, epochs: float) -> int:
        """Returns how many steps there are in so many epochs."""
        return round(epochs * self.steps_per_epoch)

    def settings(self) -> dict[str, records.Setting]:
        """Returns what is recorded and compared beside data and network, by name."""
        values = dataclasses.asdict(self)
        del values["architecture"], values["training_images"]
        return values


def resolve(args: argparse.Namespace, dataset: data.Dataset) -> Config:
    """Resolves the flags: batch size, learning rate and elastic distortion follow the run's length.

    A short run does better with more steps, with larger ones, and with undistorted images. Found
    on validation images, for 1 to 300 epochs.

    Args:
        args: the parsed flags.
        dataset: to train on.

    Raises:
        UserError: a flag does not fit the data set.
    """
    short = args.epochs <= 2
    batch_size = args.batch_size or (50 if short else 100)
    learning_rate = args.learning_rate
    if learning_rate is None:
        learning_rate = 3e-3 * (100 / args.epochs) ** 0.25 * (batch_size / 100) ** 0.5
    elastic = args.elastic
    if elastic is None:
        elastic = 0.0 if short else 0.8

    images = len(dataset.train.images)
    for flag, count in (("limit", args.limit or 0), ("batch", batch_size)):
        if count > images:
            raise UserError(f"--{flag} {count}: there are only {images:,} training images")
    if len(args.hidden_units) > records.LARGEST_DEPTH:
        raise UserError(f"--hidden_units: expected {records.LARGEST_DEPTH} layers at most")

    resolved = vars(args) | {
        "architecture": records.Architecture(
            tuple(args.hidden_units), args.latent_dim, args.activation
        ),
        "training_images": images,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "elastic": elastic,
        "warm_start": bool(args.load_weight_dir),
    }
    return Config(**{field.name: resolved[field.name] for field in dataclasses.fields(Config)})


def loss_and_gradients(
    vae: model.VAE,
    images: tf.Tensor,
    noise: tf.Tensor,
    recon_loss: str,
    beta: float | tf.Tensor,
) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
    """The arithmetic of one step (Kingma and Welling 2014, algorithm 1).

    Args:
        vae: a `model.VAE`.
        images: float32 (batch, 784) in [0, 1].
        noise: standard normal (batch, latent_dim), or (L, batch, latent_dim) for L samples of
            z.
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


class TrainingStep:
    """One training step: what it draws at random, its gradients, and its update of the weights.

    `training.steps` compiles it into a loop over several steps, since Python between the steps of
    so small a model would cost as much as their arithmetic.

    Args:
        config: of the run.
        images: uint8 (n, 784), all training images.
        vae: a `model.VAE`.
        optimizer: of its weights.
        learning_rate: its schedule, a function of the number of steps done.
    """

    def __init__(
        self,
        config: Config,
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
        """How many steps of the run are done, a variable that each update increases."""
        return self.optimizer.iterations

    def inputs(self, indices: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Gathers the images of several steps and draws all that is random in them.

        Args:
            indices: of the images of each step, int32 (steps, batch).
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
        if config.binarize == "dynamic":
            images = training.augmentation.bernoulli(images, seed, steps)
        drawn = noise.for_each_step(self.normal_noise, steps)
        return images, drawn

    def distorted_share(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the share of images that are distorted: it falls with the learning rate."""
        return self.learning_rate(step) / self.config.learning_rate

    def normal_noise(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the noise of a step, (elbo_samples, batch, latent_dim), in antithetic pairs."""
        config = self.config
        shape = [config.batch_size, config.architecture.latent_dim]
        return noise.antithetic_normal(
            shape, config.elbo_samples, config.seed, noise.TRAINING, step
        )

    def gradients(
        self, images: tf.Tensor, noise: tf.Tensor, step: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns what `loss_and_gradients` returns for one step.

        Args:
            images: float32 (batch, 784).
            noise: float32 (elbo_samples, batch, latent_dim).
            step: its number in the run, from 0 on, which the weight of the KL term follows.
        """
        config = self.config
        warmup_steps = config.steps_in(config.kl_warmup_epochs)
        beta = config.beta * training.schedule.linear_warmup(step, warmup_steps)
        return loss_and_gradients(self.vae, images, noise, config.recon_loss, beta)

    def update(self, gradients: list[tf.Tensor]) -> None:
        """Changes the weights by one step of the optimizer."""
        variables = self.vae.trainable_variables
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))


def train(config: Config, dataset: data.Dataset, run: training.run.Run) -> model.VAE:
    """The training loop: epochs of batches, several steps per call.

    Args:
        config: of the run.
        dataset: to train and to validate on.
        run: what surrounds the loop: saves, summaries, progress, signals, other workers.

    Returns:
        The trained `model.VAE`.
    """
    import keras

    import model

    keras.utils.set_random_seed(config.seed)
    learning_rate = training.schedule.LearningRate(
        config.learning_rate,
        config.schedule,
        config.steps_in(config.warmup_epochs),
        config.total_steps,
    )
    with run.workers.scope():
        vae = model.VAE(*config.architecture)
        optimizer = training.optimizer.adamw(
            vae.trainable_variables, learning_rate, config.weight_decay, config.beta_2
        )
    # The first save of a new run, or the newest save of one that continues.
    run.restore(vae, optimizer, learning_rate)

    images = dataset.train.images
    step = TrainingStep(config, images, vae, optimizer, learning_rate)
    steps_per_call = training.steps.steps_per_call(vae, config.batch_size, config.elbo_samples)
    train_steps = training.steps.compile_steps(
        step, training.run.TERM_NAMES, run.workers, steps_per_call, config.batch_size
    )
    evaluate = analysis.metrics.Evaluator(vae, config.seed)
    validation = as_seen(config, dataset.validation.images)
    for epoch in range(run.epoch, config.epochs):
        batches = data.batches(len(images), config.batch_size, config.seed, epoch)
        for several in run.remaining(batches, steps_per_call):
            # Are losses finite? Then progress and summaries; a save where one is due; Ctrl-C.
            run.after_steps(train_steps(several))
        figures = evaluate(validation)
        run.after_epoch(analysis.metrics.curve_point(figures, config.recon_loss, config.beta))
    return vae


def as_seen(config: Config, images: np.ndarray) -> np.ndarray:
    """Returns images, uint8 (n, 784), as the model is evaluated on.

    Where it is trained on Bernoulli samples of the grey values, that is one fixed sample.
    """
    if config.binarize == "dynamic":
        return noise.bernoulli_sample(images, config.seed)
    return images


def finish(config: Config, dataset: data.Dataset, vae: model.VAE, run: training.run.Run) -> None:
    """Fits the prior to the encoded training images, and writes the finished weights.

    Args:
        config: of the run.
        dataset: it was trained on.
        vae: the trained `model.VAE`.
        run: that has come to its last step.
    """
    if run.workers.chief:
        print("Fitting a prior to the encoded training images ...", flush=True)
    encoded_training, encoded_validation = (
        analysis.fitted_prior.Encoded(*analysis.metrics.encode(vae, as_seen(config, split.images)))
        for split in (dataset.train, dataset.validation)
    )
    prior, prior_record = analysis.fitted_prior.fit(
        encoded_training,
        dataset.train.labels,
        encoded_validation,
        config.seed,
        before_each_class=run.leave_if_interrupted,
    )
    if run.workers.chief and prior is None:
        print(f"There is no fitted prior: {prior_record.reason}.")
    run.finish(analysis.metrics.posterior(*encoded_training), prior, prior_record)


def load_data(args: argparse.Namespace) -> data.Dataset:
    """Loads the data set that the flags name."""
    path = cli.data_dir(args, args.dataset)
    with cli.explained("--data_dir: " if path else f"--dataset {args.dataset}: "):
        return data.load(args.dataset, path, args.limit)


def open_folder(
    args: argparse.Namespace, config: Config, dataset: data.Dataset, chief: bool
) -> storage.run_folder.RunFolder:
    """Returns the folders of the run; refuses those of another run.

    Args:
        args: the parsed flags.
        config: what a run in the folders must agree with.
        dataset: the same.
        chief: whether this process is the one that writes.
    """
    # Where digits replace MNIST, they never fill the default folders of MNIST.
    suffix = "_digits" if dataset.fallback_reason else ""
    weights, log = args.save_weight_dir, args.log_dir
    if "save_weight_dir" not in args.given:
        weights += suffix
    if "log_dir" not in args.given:
        log += suffix
    network: dict[str, Any] = config.architecture._asdict()
    if config.warm_start:
        # Given weights bring their own network, with which typed flags must agree.
        network = {name: value for name, value in network.items() if name in args.given}
    identity = storage.run_folder.Identity(dataset_record(dataset), network, config.settings())
    with cli.explained(after=WAYS_OUT):
        return storage.run_folder.RunFolder(weights, log, identity, args.overwrite, writes=chief)


def dataset_record(dataset: data.Dataset) -> records.DatasetRecord:
    """Returns what `run.json` says of a data set."""
    return records.DatasetRecord(dataset.name, dataset.sha256, dataset.class_names)


def starting_point(
    args: argparse.Namespace, config: Config, folder: storage.run_folder.RunFolder
) -> tuple[Config, storage.validation.Weights | None]:
    """Returns the configuration with the run's own network, and the weights it starts from."""
    given = None
    architecture = config.architecture
    if args.load_weight_dir:
        with cli.explained("--load_weight_dir: "):
            given = folder.given_weights(args.load_weight_dir)
    if folder.record is not None:
        architecture = folder.record.architecture
    elif given is not None:
        architecture = given.record.architecture
    return dataclasses.replace(config, architecture=architecture), given


def new_run(
    args: argparse.Namespace,
    config: Config,
    dataset: data.Dataset,
    workers: training.distribution.Workers,
    folder: storage.run_folder.RunFolder,
    given: storage.validation.Weights | None,
) -> training.run.Run:
    """Returns what surrounds the training loop, a context manager."""
    workers.require_equal_shares(config.batch_size)
    plan = training.run.Plan(
        epochs=config.epochs,
        steps_per_epoch=config.steps_per_epoch,
        batch_size=config.batch_size,
        log_every=args.log_every,
        save_every=args.save_every,
        seed=config.seed,
        pictured=as_seen(config, dataset.validation.images),
    )
    record = training.run.new_record(
        dataset_record(dataset), config.architecture, config.settings(), given
    )
    return training.run.Run(plan, workers, folder, record, given)


def next_commands(args: argparse.Namespace, folder: storage.run_folder.RunFolder) -> str:
    """Returns the commands that show a finished run, as one types them."""
    weights = f"--load_weight_dir {shlex.quote(folder.path)}"
    data_flag = f" --data_dir {shlex.quote(args.data_dir)}" if args.data_dir else ""
    return "\n".join(
        (
            f"Next: python eval.py {weights}{data_flag}",
            f"      python eval_genresult.py {weights}",
            f"      tensorboard --logdir {shlex.quote(folder.log_dir)}",
        )
    )


@cli.script(parser)
def main(args: argparse.Namespace) -> None:
    """Flags -> data -> configuration -> folders -> training loop -> fitted prior -> weights."""
    cluster = training.cluster.from_environment(args.strategy)
    chief = cluster is None or cluster.index == 0
    dataset = load_data(args)
    if chief:
        display.progress.announce(dataset)
    config = resolve(args, dataset)
    folder = open_folder(args, config, dataset, chief)
    if folder.finished:
        with folder:
            folder.saves.remove_all()
        print(f"{folder.path} holds this run, finished after {config.epochs} epochs.")
        print(f"There is nothing to do.\n{next_commands(args, folder)}")
        return
    config, given = starting_point(args, config, folder)
    if chief:
        print(f"{folder.intention} in {folder.path}, event files in {folder.log_dir}.")
        print("Importing TensorFlow and compiling the training step ...", flush=True)
    with (
        folder,
        training.distribution.join(args.strategy, cluster, args.cluster_timeout) as workers,
        new_run(args, config, dataset, workers, folder, given) as run,
    ):
        vae = train(config, dataset, run)
        finish(config, dataset, vae, run)
    if chief:
        print(f"Finished: weights in {folder.path}, event files in {folder.log_dir}.")
        print(next_commands(args, folder))
        if dataset.fallback_reason:
            print("THIS IS NOT MNIST: these weights were trained on `digits` alone.")


if __name__ == "__main__":
    sys.exit(main())
