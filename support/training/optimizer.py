"""The optimizers, with a decoupled weight decay that is applied to kernels only.

`adamw` is AdamW (Loshchilov and Hutter 2019, algorithm 2). `nadamw` is AdamW with Nesterov's
momentum (Dozat, "Incorporating Nesterov Momentum into Adam", 2016): each step uses the running mean
of the gradients as it will be at the next step. That costs nothing and gives a better result after
the same number of steps.
"""

from collections.abc import Sequence

import keras

CLASSES = {"nadamw": keras.optimizers.Nadam, "adamw": keras.optimizers.AdamW}


def build(
    name: str,
    variables: Sequence[keras.Variable],
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.0,
    beta_2: float = 0.999,
) -> keras.optimizers.Optimizer:
    """Returns an optimizer of Keras, built for the variables.

    Args:
        name: one of `records.OPTIMIZERS`.
        variables: the variables to update.
        learning_rate: a number or a schedule.
        weight_decay: each step subtracts learning_rate * weight_decay * kernel from each kernel;
            biases do not decay.
        beta_2: decay rate of the running mean of squared gradients.
    """
    optimizer = CLASSES[name](learning_rate, weight_decay=weight_decay, beta_2=beta_2)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    return optimizer
