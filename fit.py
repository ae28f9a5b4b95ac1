"""A run in progress: windows of steps, points of curves, pictures, checkpoints, weights.

    fit.train(args, config, dataset, folder, team)   # train.py, once flags are checked

Everything that is called from here is a function of the run's `state`, which lies in every
checkpoint: a run that is interrupted and continued ends in the same bits as one that was not.
"""

import argparse
import time
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import cluster
import console
import data
import flags
import logs
import loop
import measure
import model
import weights
from flags import UserError

# Epochs between two pictures of the same digits in TensorBoard; the last epoch has one, too.
PICTURE_EPOCHS = 5


class Run(NamedTuple):
    """What a run in progress consists of; `state` alone changes, and lies in every checkpoint.

    `state` holds `step` and `run_id`, and the running sums of `loop.ROW`: `epoch_sum` over the
    epoch, `log_sum` over the `logged` steps since the last point.
    """

    args: argparse.Namespace
    dataset: data.Dataset
    folder: weights.TrainingFolder
    vae: model.VAE
    optimizer: keras.optimizers.Optimizer
    rate: float | keras.optimizers.schedules.LearningRateSchedule
    checkpoint: tf.train.Checkpoint
    state: dict
    curves: logs.Curves
    team: cluster.Team

    @property
    def steps(self):
        """Steps of an epoch."""
        return len(self.dataset.train.images) // self.args.batch

    def disk_errors(self, flag):
        """Turns a failed write to the folder of `flag` into a `UserError`."""
        return flags.disk_errors(f"--{flag} {getattr(self.args, flag)}")


def train(args, config, dataset, folder, team):
    """Builds or restores the run, and trains it to its end."""
    keras.utils.set_random_seed(args.seed)
    steps = len(dataset.train.images) // args.batch
    rate = learning_rate(args.learning_rate, args.schedule, args.warmup_epochs, args.epoch, steps)
    with team.scope():
        if args.load_weight_dir:
            _, vae = weights.load_vae(args.load_weight_dir)
        else:
            vae = model.VAE(**config["architecture"])
        optimizer = adam(vae.trainable_variables, rate, args.weight_decay)
    checkpoint = tf.train.Checkpoint(vae=vae, optimizer=optimizer)
    width = len(loop.ROW)
    state = {"run_id": config["run_id"], "step": 0, "logged": 0}
    state |= {"log_sum": [0.0] * width, "epoch_sum": [0.0] * width}
    prefix, saved = folder.newest_checkpoint(config["run_id"])
    if prefix:
        state = saved
        checkpoint.read(prefix).assert_consumed()
        epoch, done = divmod(state["step"], steps)
        if team.chief:
            print(f"Continuing {folder.folder} after {epoch} epochs and {done} steps.")
    team.require_same(state["step"], f"the workers see different checkpoints in {folder.folder}")
    with flags.disk_errors(f"--log_dir {args.log_dir}"):
        curves = logs.Curves(args.log_dir, state["step"]) if team.chief else logs.NoCurves()
        if not prefix:
            curves.text("configuration", as_markdown(config))
    run = Run(args, dataset, folder, vae, optimizer, rate, checkpoint, state, curves, team)
    try:
        with console.StopRequest() as stop:
            fit(run, config, stop)
            team.wait()
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            "out of memory: try a smaller --batch, --elbo_samples or --importance_samples"
        ) from error
    finally:
        with run.disk_errors("log_dir"):
            curves.close()
    if team.chief:
        print(f"Finished: weights in {args.save_weight_dir}, curves in {args.log_dir}.")


def adam(variables, learning_rate, weight_decay=0.0):
    """Returns Keras's AdamW, built; biases do not decay (Loshchilov and Hutter 2019, alg. 2).

    Args:
        learning_rate: a number or a schedule; the decay of a step is their product.
    """
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    return optimizer


def learning_rate(peak, schedule, warmup_epochs, epochs, steps):
    """Returns the learning rate, a number or a schedule, as `train.py`'s flags describe it.

    Args:
        steps: of one epoch.
    """
    warmup = round(warmup_epochs * steps)
    if schedule == "constant" and not warmup:
        return peak
    total = epochs * steps
    if schedule == "cosine":
        warmup = min(warmup, total // 10)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(total - warmup, 1),
        # A cosine that ends where it begins is the constant.
        alpha=1.0 if schedule == "constant" else 0.0,
    )


def fit(run, config, stop):
    """Trains window by window to the last epoch; logs, saves and stops in between."""
    args, state, steps = run.args, run.state, run.steps
    images, seen = run.dataset.train.images, run.dataset.validation.images
    objective = loop.Objective(
        args.recon_loss,
        args.beta,
        args.elbo_samples,
        args.importance_samples,
        args.warp and (lambda step: args.warp * rate_at(run, step) / args.learning_rate),
        args.binarize == "dynamic",
    )
    if objective.binarize:
        seen = measure.binarized(seen, args.seed)
    window = loop.training_window(
        run.vae, run.optimizer, images, args.batch, args.seed, objective, team=run.team
    )
    # No steps yet: compiles, so that the speed of the first epoch is that of training.
    window(np.zeros((0, args.batch), np.int32))
    evaluate = measure.evaluation(run.vae, args.seed, samples=args.importance_samples)
    saved_at = time.monotonic()
    while state["step"] < args.epoch * steps:
        epoch, done = divmod(state["step"], steps)
        order = data.batches(len(images), args.batch, args.seed, epoch)
        progress = console.Progress(epoch + 1, args.epoch, steps, args.batch, done, run.team.chief)
        while done < steps:
            rows = window(order[done : done + window.size]).astype(np.float64)
            if not np.isfinite(rows[:, 0]).all():
                raise not_finite(run, state["step"] + int(np.argmin(np.isfinite(rows[:, 0]))) + 1)
            for row in rows:
                record(run, row)
            done += len(rows)
            progress.update(done, rows[-1][loop.ROW.index("loss_total")])
            stop.agree(run.team)
            if done < steps and (stop.agreed or time.monotonic() - saved_at > args.save_every):
                save(run)
                saved_at = time.monotonic()
            stop.act(args.save_weight_dir, done < steps)
        trained = dict(zip(loop.ROW, np.array(state["epoch_sum"]) / steps, strict=True))
        state["epoch_sum"] = [0.0] * len(loop.ROW)
        validated = validate(run, evaluate, seen)
        last = epoch + 1 == args.epoch
        if run.team.chief and (last or epoch % PICTURE_EPOCHS == 0):
            draw_digits(run, seen)
        progress.finish(trained, validated)
        config |= {"epochs_done": epoch + 1}
        # Passes over all training images: worth their time once, at the end.
        config |= summary(run) if last and run.team.chief else {"posterior": None, "variance": None}
        config = save(run, config)
        saved_at = time.monotonic()
        stop.act(args.save_weight_dir, not last)


def save(run, config=None):
    """Writes a checkpoint; with `config`, first the weights to evaluate and config.json.

    A worker that is not the chief looks at its weights and writes nothing.

    Returns:
        `config` with the SHA-256 of the weights, if given.

    Raises:
        UserError: the weights are not finite; nothing is written then.
    """
    # The last step's loss is that of the weights before it, so this looks at them.
    if not all(np.isfinite(weight.numpy()).all() for weight in run.vae.weights):
        raise not_finite(run, run.state["step"])
    if not run.team.chief:
        return config
    if config:
        with run.disk_errors("save_weight_dir"):
            config = run.folder.write_weights(run.vae, config)
    with run.disk_errors("log_dir"):
        # Before the checkpoint, which vouches for every point up to its step.
        run.curves.flush()
    with run.disk_errors("save_weight_dir"):
        run.folder.save_checkpoint(run.checkpoint, run.state, run.args.keep)
    return config


def not_finite(run, step):
    """Returns the `UserError` of a loss that is no longer finite at `step`."""
    prefix, last = run.folder.newest_checkpoint(run.state["run_id"])
    kept = f"the checkpoint of step {last['step']} in" if prefix else "no checkpoint in"
    return UserError(
        f"the loss is no longer finite at step {step} (learning rate "
        f"{float(run.optimizer.learning_rate):.3g}): {kept} {run.args.save_weight_dir} stays as it "
        "was; try a smaller --learning_rate in another --save_weight_dir",
        flags.EXIT_NOT_FINITE,
    )


def record(run, row):
    """Adds the means of one step to the running sums, and writes a point when one is due."""
    state = run.state
    state["step"] += 1
    state["logged"] += 1
    for sums in ("epoch_sum", "log_sum"):
        # One by one, in float64: the sums do not depend on where windows begin.
        state[sums] = [a + b for a, b in zip(state[sums], row.tolist(), strict=True)]
    if state["step"] % run.args.log_every == 0:
        means = [total / state["logged"] for total in state["log_sum"]]
        point = dict(zip(loop.ROW, means, strict=True)) | {"beta": run.args.beta}
        point["learning_rate"] = float(rate_at(run, state["step"] - 1))
        with run.disk_errors("log_dir"):
            run.curves.scalars("train", state["step"], point)
        state |= {"logged": 0, "log_sum": [0.0] * len(loop.ROW)}


def rate_at(run, step):
    """Returns the learning rate of a step, counted from 0."""
    return run.rate(step) if callable(run.rate) else run.rate


def validate(run, evaluate, images):
    """Evaluates the validation images, writes their points, and returns their means."""
    evaluated = evaluate(images, run.team.index, run.team.workers)
    evaluated = {name: run.team.total(values) for name, values in evaluated.items()}
    validated = measure.means(evaluated)
    objective = model.objective(evaluated, run.args.recon_loss, run.args.beta)
    validated |= {
        "objective": float(objective),
        "active_units": measure.active_units(evaluated["mu"]),
    }
    with run.disk_errors("log_dir"):
        points = {name: validated[name] for name in (*loop.ROW, "active_units")}
        run.curves.scalars("val", run.state["step"], points)
    return validated


def draw_digits(run, images, rows=4, columns=10):
    """Writes digits for TensorBoard: the same images over their reconstructions, the same draws."""

    def decoded(z):
        return loop.as_digits(run.vae.decode(z)).numpy()

    step, columns = run.state["step"], min(columns, len(images))
    images = images[: min(rows, len(images) // columns) * columns]
    mu, _ = run.vae.encode(loop.pixels(images))
    # Rows of originals, each above the row of its reconstructions.
    pairs = [array.reshape(-1, columns, array.shape[1]) for array in (images, decoded(mu))]
    pairs = np.stack(pairs, axis=1).reshape(-1, images.shape[1])
    noise = loop.noise_like(mu.shape, run.args.seed, loop.GENERATION_STREAM, 0)
    with run.disk_errors("log_dir"):
        run.curves.digits("val", step, "reconstructions", pairs, columns)
        run.curves.digits("val", step, "prior_draws", decoded(noise), columns)


def summary(run):
    """Returns what config.json tells of a finished run: `posterior`, `variance`."""
    images, variance = run.dataset.train.images, None
    if run.args.binarize == "dynamic":
        images = measure.binarized(images, run.args.seed)
    if run.args.recon_loss == "gaussian":
        l2 = measure.evaluation(run.vae, run.args.seed)(images)["loss_l2"]
        variance = float(model.optimal_variance(l2))
    return {"posterior": measure.posterior(run.vae, images), "variance": variance}


def as_markdown(config):
    """Returns the configuration as a Markdown table, for TensorBoard's text tab."""
    lines = ["| setting | value |", "| --- | --- |"]
    for part in ("dataset", "architecture", "training", "versions"):
        lines += [f"| {name} | {flags.spelled(value)} |" for name, value in config[part].items()]
    return "\n".join(lines)
