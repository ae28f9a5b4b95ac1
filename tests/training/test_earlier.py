"""support/training/earlier.py: the defaults with which version 1.0 began runs."""

import dataclasses

import numpy as np
import pytest

import data
import train as script
from support.records import Architecture
from support.training import earlier

MNIST_SIZED = data.load("digits")._replace(train=data.Split(np.zeros(55_000), None))
DEFAULT = Architecture((512, 256), 128, "silu", residual=False)


@pytest.mark.parametrize(
    "command, network, beta, learning_rate",
    [
        ("", DEFAULT, 1.0, 3e-3),
        # Today's rates would be 0.0075, for another optimizer, and 0.009.
        ("--epoch 2", DEFAULT, 1.0, 3e-3 * 50**0.25 * 0.5**0.5),
        ("--epoch 3 --batch 400", DEFAULT, 1.0, 3e-3 * (100 / 3) ** 0.25 * 2),
        ("--epoch 2 --lr 0.01", DEFAULT, 1.0, 0.01),
        ("--recon_loss l2", DEFAULT, 1.0, 3e-3),
        ("--recon_loss l2 --beta 0.2", DEFAULT, 0.2, 3e-3),
        ("--hidden_units 8 8", DEFAULT._replace(hidden_units=(8, 8)), 1.0, 3e-3),
        ("--residual", DEFAULT._replace(residual=True), 1.0, 3e-3),
    ],
)
def test_what_was_not_typed_is_as_version_1_had_it(command, network, beta, learning_rate):
    args = script.parser().parse_args(command.split())
    config = script.resolve(args, MNIST_SIZED)
    assert earlier.with_earlier_defaults(config, args.given) == dataclasses.replace(
        config,
        architecture=network,
        beta=beta,
        learning_rate=pytest.approx(learning_rate, rel=1e-12),
        optimizer="adamw",
        initial_weights="random",
    )
    wanted = script.parser().parse_args([*command.split(), "--optimizer", "nadamw"])
    config = script.resolve(wanted, MNIST_SIZED)
    assert earlier.with_earlier_defaults(config, wanted.given).optimizer == "nadamw"
