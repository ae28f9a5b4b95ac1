"""The schedule of the learning rate, and the linear warm-up at the start of a run."""

import keras
import tensorflow as tf


def linear_warmup(step: tf.Tensor, warmup_steps: int) -> tf.Tensor:
    """Returns a factor that rises linearly to 1 over `warmup_steps` steps, then stays at 1.

    Args:
        step: how many steps are done before this one.
        warmup_steps: length of the warm-up; with 0 or 1 the factor is 1 from the first step on.

    Returns:
        float32, in (0, 1].
    """
    return tf.minimum(1.0, (tf.cast(step, tf.float32) + 1) / max(warmup_steps, 1))


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to `peak`, then a linear decay, or no decay.

    The decay would reach 0 one step after the last one.

    Args:
        peak: the highest learning rate.
        decay: `linear`, or `constant` for no decay.
        warmup_steps: length of the warm-up; limited to a tenth of the run.
        total_steps: length of the whole run.
    """

    def __init__(self, peak: float, decay: str, warmup_steps: int, total_steps: int) -> None:
        self.peak = peak
        self.decay = decay
        self.warmup_steps = min(warmup_steps, total_steps // 10)
        self.total_steps = total_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate after `step` steps, float32."""
        risen = linear_warmup(step, self.warmup_steps)
        if self.decay == "constant":
            return self.peak * risen
        decay_steps = max(self.total_steps - self.warmup_steps, 1)
        left = (self.total_steps - tf.cast(step, tf.float32)) / decay_steps
        return self.peak * tf.minimum(risen, left)

    def share_of_peak(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate after `step` steps as a fraction of its peak, float32."""
        return self(step) / self.peak
