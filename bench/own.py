"""Contenders of this repository: train.py's own compiled steps, and its validation."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import numpy as np

import data
import model
import train
from bench import common
from bench.contenders import Contender, training_images
from support.analysis import metrics

VALIDATION_IMAGES = 5000


def plain(args: argparse.Namespace) -> Contender:
    """The recipe that all frameworks share: Adam, undistorted images."""
    return _epochs(args, [*common.PLAIN_TRAINING, "--elbo_samples", str(args.samples)])


def default_recipe(args: argparse.Namespace) -> Contender:
    """An epoch of the default recipe of train.py, with the network that all contenders train.

    So it has two samples of z for each image, distortion and weight decay.

    The learning rate stays constant, and so all images are distorted: the share of distorted images
    affects the losses, not the amount of work.
    """
    defaults = train.parser().parse_args([])
    flags = [*common.PLAIN_TRAINING, "--elbo_samples", str(defaults.elbo_samples)]
    flags += ["--weight_decay", str(defaults.weight_decay)]
    flags += ["--elastic", str(train.resolve(defaults, common.load_data(args)).elastic)]
    return _epochs(args, flags)


def _epochs(args: argparse.Namespace, flags: Sequence[str]) -> Contender:
    """Returns a contender whose turn is one epoch of train.py with some flags."""
    images = training_images(args)
    steps = common.compile_own_steps(
        images,
        [
            *flags,
            *("--seed", str(args.seed)),
            *("--batch", str(args.batch)),
            *("--learning_rate", str(args.learning_rate)),
            *("--hidden_units", *map(str, args.hidden_units)),
            *("--latent_dim", str(args.latent_dim)),
            *("--activation", args.activation),
        ],
    )
    epochs = itertools.count()

    def epoch() -> float:
        order = data.batches(len(images), args.batch, args.seed, next(epochs))
        losses = [
            steps.run(order[first : first + steps.steps_per_call])["objective"]
            for first in range(0, len(order), steps.steps_per_call)
        ]
        return np.concatenate(losses).mean()

    return Contender(epoch)


def validation(args: argparse.Namespace) -> Contender:
    """The pass over 5,000 validation images at the end of an epoch of train.py."""
    images = training_images(args)[:VALIDATION_IMAGES]
    vae = model.VAE(args.hidden_units, args.latent_dim, args.activation, residual=False)
    evaluate = metrics.Evaluator(vae, args.seed)
    return Contender(lambda: evaluate(images).means()["loss_total"])
