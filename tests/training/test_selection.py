"""support/training/selection.py: every save keeps the best epoch, and patience ends a run."""

import keras
import numpy as np
import pytest

from support.storage import weights
from support.training.selection import BestEpoch
from tests.helpers import interrupted, same_run, train


@pytest.fixture
def variables():
    return [keras.Variable(np.zeros(3, np.float32)), keras.Variable(np.zeros((2, 2), np.float32))]


def assign(variables, number):
    for variable in variables:
        variable.assign(np.full(variable.shape, number, np.float32))


def test_the_weights_of_the_lowest_objective_are_selected(variables):
    best = BestEpoch(variables)
    for epoch, objective in enumerate([120.0, 110.0, 111.0, 113.0], 1):
        assign(variables, epoch)
        best.update(epoch, objective)
    best.select()
    assert (best.epoch, best.objective, best.last_objective) == (2, 110.0, 113.0)
    assert all((variable.numpy() == 2).all() for variable in variables)


def test_the_first_of_equally_good_epochs_is_kept(variables):
    best = BestEpoch(variables)
    for epoch in (1, 2):
        best.update(epoch, 100.0)
    assert best.epoch == 1


def test_a_negative_objective_is_better_than_a_positive_one(variables):
    """The objective may have any sign: a best value must not start at 0."""
    best = BestEpoch(variables)
    best.update(1, 50.0)
    best.update(2, -50.0)
    assert best.epoch == 2


def test_patience_counts_epochs_since_the_best_one(variables):
    best = BestEpoch(variables, patience=2)
    ended = []
    for epoch, objective in enumerate([5.0, 4.0, 4.5, 4.2, 4.1], 1):
        best.update(epoch, objective)
        ended.append(best.out_of_patience(epoch))
    assert ended == [False, False, False, True, True]
    assert not BestEpoch(variables).out_of_patience(10**6)


def test_what_a_save_keeps_continues_to_the_same_choice(variables):
    best = BestEpoch(variables, patience=3)
    assign(variables, 7)
    best.update(1, 10.0)
    assign(variables, 8)
    best.update(2, 11.0)
    other = BestEpoch(variables, patience=3)
    other.restore({name: array.copy() for name, array in best.state().items()})
    assert other.state().keys() == best.state().keys()
    for name, array in best.state().items():
        np.testing.assert_array_equal(other.state()[name], array)
        assert other.state()[name].dtype == array.dtype
    other.select()
    assert (variables[0].numpy() == 7).all()


# A learning rate so high that some later epoch is worse than the one before it.
OVERSHOOTING = ["--epoch", "6", "--learning_rate", "0.1", "--schedule", "constant"]


@pytest.fixture
def second_epoch_is_best(monkeypatch):
    update = BestEpoch.update

    def update_with_a_minimum(self, epoch, objective):
        update(self, epoch, objective + 1000.0 * (epoch - 2) ** 2)

    monkeypatch.setattr(BestEpoch, "update", update_with_a_minimum)


@pytest.mark.slow
def test_an_interrupted_run_keeps_the_same_epoch_to_the_same_bits(
    tmp_path, capsys, second_epoch_is_best
):
    flags = ["--epoch", "4", "--keep", "best"]
    assert train(tmp_path / "whole", *flags) == 0
    assert weights.read_record(str(tmp_path / "whole" / "weights")).kept_epoch == 2
    assert "Kept the weights of epoch 2 of 4" in capsys.readouterr().out
    # In the third epoch: the weights of the second one come from the save.
    with interrupted(steps=30, steps_per_call=5):
        assert train(tmp_path / "parts", *flags) == 143
    assert train(tmp_path / "parts", *flags) == 0
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_patience_ends_a_run_and_the_same_command_leaves_it_alone(tmp_path, capsys):
    flags = [*OVERSHOOTING, "--epoch", "60", "--patience", "2"]
    assert train(tmp_path, *flags) == 0
    record = weights.read_record(str(tmp_path / "weights"))
    assert record.finished and record.epochs_done == record.kept_epoch + 2 < 60
    capsys.readouterr()
    assert train(tmp_path, *flags) == 0
    assert f"finished after {record.epochs_done} epochs" in capsys.readouterr().out


def test_patience_and_the_last_epoch_contradict_each_other(tmp_path, capsys):
    assert train(tmp_path, "--patience", "2", "--keep", "last") == 2
    assert "--patience cannot be combined with --keep last" in capsys.readouterr().err
