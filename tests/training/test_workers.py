"""support/training/workers.py: workers on one machine, and TensorFlow's errors as one line.

Tests with several processes are in tests/slow/test_workers.py.
"""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from support.errors import UserError
from support.training import workers as workers_module
from support.training.rendezvous import Address, Cluster
from support.training.workers import Workers

CLUSTER = Cluster((Address("a", 1), Address("b", 1)), 0)


def test_one_device_is_its_own_chief_and_its_values_are_the_total():
    workers = Workers()
    assert workers.chief and workers.replicas == 1 and workers.strategy is None
    values = np.array([1.5, -2.0])
    np.testing.assert_array_equal(workers.total(values), values)
    assert workers.any(True) and not workers.any(False)
    workers.wait()
    with workers.scope():
        assert not tf.distribute.has_strategy()


def test_all_devices_of_one_machine_are_one_worker():
    workers = Workers(tf.distribute.MirroredStrategy(["CPU:0"]))
    assert workers.chief and workers.replicas == 1
    np.testing.assert_array_equal(workers.total(np.array([3.0])), [3.0])
    with workers.scope():
        assert tf.distribute.has_strategy()


def test_only_the_first_worker_is_the_chief():
    assert Workers(index=0).chief and not Workers(index=1).chief


def test_a_batch_that_replicas_cannot_share_is_refused():
    workers = Workers()
    workers.replicas = 4
    workers.require_equal_shares(20)
    with pytest.raises(
        UserError, match="--batch 18 is not a multiple of the number of devices, 4: choose"
    ):
        workers.require_equal_shares(18)


class FakeWorkers(Workers):
    """One of several workers; the others report the given values, one after the other."""

    def __init__(self, index, others):
        super().__init__(index=index)
        self._others = others

    def total(self, values):
        return values + self._others.pop(0)


def test_numbers_that_differ_from_the_chiefs_are_refused_on_every_worker():
    # On a worker that is not the chief: the chief reports its numbers, then nobody complains.
    FakeWorkers(1, [np.array([7.0, 3.0]), 0.0]).require_same((7, 3), "differ")
    with pytest.raises(UserError, match="differ"):
        FakeWorkers(1, [np.array([7.0, 3.0]), 0.0]).require_same((7, 4), "differ")
    # The chief agrees with itself, but another worker complains.
    with pytest.raises(UserError, match="differ"):
        FakeWorkers(0, [np.zeros(2), 1.0]).require_same((7, 3), "differ")


@pytest.mark.parametrize(
    "strategy, mirrored", [("auto", False), ("one", False), ("mirrored", True)]
)
def test_the_strategy_is_what_the_flag_says(strategy, mirrored):
    with workers_module.join(strategy, None, 1.0) as workers:
        assert isinstance(workers.strategy, tf.distribute.MirroredStrategy) == mirrored
        assert workers.chief


@contextlib.contextmanager
def explained(cluster):
    with workers_module._explained(cluster):
        yield


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    ],
)
def test_the_loss_of_another_worker_is_one_line(error):
    with (
        pytest.raises(UserError, match=f"another worker has ended .*{error.__name__}"),
        explained(CLUSTER),
    ):
        raise error(None, None, "gone")
    # On one machine, no worker can be lost.
    with pytest.raises(error), explained(None):
        raise error(None, None, "gone")


def test_other_errors_pass():
    with pytest.raises(tf.errors.InvalidArgumentError), explained(CLUSTER):
        raise tf.errors.InvalidArgumentError(None, None, "a bug")
