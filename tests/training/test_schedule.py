"""support/training/schedule.py: the learning rate of each step, against the formula in Python."""

import numpy as np
import pytest
import tensorflow as tf

from support.training.schedule import LearningRate, linear_warmup


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_without_a_warm_up_everything_counts_from_the_first_step(warmup_steps):
    assert [float(linear_warmup(step, warmup_steps)) for step in range(3)] == [1, 1, 1]


def test_a_warm_up_rises_linearly_to_one_and_stays():
    """The first step has more than 0, so it is not wasted, and the last one has 1."""
    found = [float(linear_warmup(tf.constant(step), 4)) for step in range(6)]
    assert found == [0.25, 0.5, 0.75, 1, 1, 1]
    assert linear_warmup(tf.constant(0), 4).dtype == tf.float32


def expected_rates(peak, warmup, total):
    """The lower of two lines: one up to the peak, one from there to 0 after the last step."""
    steps = np.arange(total + 1)
    up = (steps + 1) / max(warmup, 1)
    down = (total - steps) / (total - warmup)
    return peak * np.minimum(1, np.minimum(up, down))


@pytest.mark.parametrize("warmup, total", [(10, 100), (3, 100), (0, 100), (0, 1)])
def test_the_rate_rises_to_its_peak_then_falls_to_zero_after_the_last_step(warmup, total):
    rate = LearningRate(0.02, "linear", warmup, total)
    found = [float(rate(tf.constant(step))) for step in range(total + 1)]
    np.testing.assert_allclose(found, expected_rates(0.02, warmup, total), rtol=1e-5, atol=1e-9)
    assert found[-1] == 0 and found[-2] > 0
    assert max(found) == pytest.approx(0.02, rel=0.02)


def test_a_constant_rate_only_warms_up():
    rate = LearningRate(0.02, "constant", 4, 100)
    found = [float(rate(tf.constant(step))) for step in range(100)]
    np.testing.assert_allclose(found, 0.02 * np.minimum(1, np.arange(1, 101) / 4), rtol=1e-6)


@pytest.mark.parametrize("decay", ["linear", "constant"])
def test_the_warm_up_takes_a_tenth_of_the_run_at_most(decay):
    long, tenth = (LearningRate(1.0, decay, warmup, 59) for warmup in (1000, 5))
    for step in range(59):
        assert float(long(step)) == float(tenth(step))
    assert float(long(3)) < float(long(4)) == pytest.approx(1.0)


def test_steps_of_any_integer_type_give_the_same_rate():
    """Keras counts steps in int64 or int32; for the curve, they are Python's int."""
    rate = LearningRate(0.02, "linear", 5, 60)
    for step in (0, 7, 59):
        rates = {
            float(rate(given)) for given in (step, tf.constant(step), tf.constant(step, "int64"))
        }
        assert len(rates) == 1
