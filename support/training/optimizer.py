"""AdamW with its decoupled weight decay applied to kernels only."""

from collections.abc import Sequence

import keras


def adamw(
    variables: Sequence[keras.Variable],
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.0,
    beta_2: float = 0.999,
) -> keras.optimizers.AdamW:
    """Returns Keras's AdamW (Loshchilov and Hutter 2019, algorithm 2), built for the variables.

    Args:
        variables: the variables to update.
        learning_rate: a number or a schedule.
        weight_decay: each step subtracts learning_rate * weight_decay * kernel from each kernel;
            biases do not decay.
        beta_2: decay rate of the running mean of squared gradients.
    """
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, beta_2=beta_2)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    return optimizer
