"""support/analysis/collapse.py: when a collapse is said, and with which cause."""

import dataclasses

import pytest

from support.analysis import collapse
from support.records import Posterior
from tests.storage.examples import RECORD


def record(mu_std=(0.0, 0.09), step=5000, **training):
    return dataclasses.replace(
        RECORD,
        step=step,
        posterior=Posterior((0.0, 0.0), mu_std, (0.0, 0.0)),
        training=dict(RECORD.training) | training,
    )


def test_a_unit_is_active_from_a_variance_of_a_hundredth_on():
    assert collapse.active_units(record().posterior) == 0
    assert collapse.active_units(record((0.11, 0.09)).posterior) == 1
    assert collapse.active_units(record((0.5, 3.0)).posterior) == 2


def test_nothing_is_said_of_weights_with_an_active_unit_or_of_an_unfinished_run(capsys):
    assert collapse.notice(record((0.0, 0.11))) == ""
    assert collapse.notice(dataclasses.replace(RECORD, posterior=None)) == ""
    collapse.print_notice(record((0.0, 0.11)))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "training, cause, advice",
    [
        ({"recon_loss": "l2", "beta": 1.0}, "--recon_loss l2, --beta 1", "--beta 0.05"),
        ({"recon_loss": "l2", "beta": 0.05}, "--recon_loss l2, --beta 0.05", "--beta 0.005"),
        ({"recon_loss": "bce", "beta": 40.0}, "--recon_loss bce, --beta 40", "--beta 1"),
        ({"recon_loss": "bce", "beta": 1.0}, "--recon_loss bce, --beta 1", "--beta 0.1"),
        # Weights of an early version, which had neither flag.
        ({}, "--recon_loss bce, --beta 1", "--beta 0.1"),
    ],
)
def test_the_cause_is_said_with_a_smaller_weight_to_try(capsys, training, cause, advice):
    collapse.print_notice(record(**training))
    said = capsys.readouterr().out
    assert said.startswith("WARNING: the posterior has collapsed. ") and said.count("\n") == 1
    assert f"({cause}): train again with {advice}, in new folders." in said


def test_a_run_of_a_few_steps_is_not_blamed_on_its_flags():
    assert collapse.notice(record(step=199)).endswith(
        "After only 199 steps this may change: train longer."
    )
    assert "train again with" in collapse.notice(record(step=200))
