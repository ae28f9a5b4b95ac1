"""The defaults of version 1.0, so that the command that began a run then continues it now."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from support.storage.run_folder import EARLIER_SETTINGS
from support.training.config import Config

HIDDEN_UNITS = (512, 256)
BETA = 1.0


def with_earlier_defaults(config: Config, given: Collection[str]) -> Config:
    """Returns the configuration as version 1.0 had it where the user did not type a flag.

    Args:
        config: the configuration with today's defaults.
        given: names of the flags that the user typed. The lengths that follow from others, such as
            `epochs`, are as they were then.
    """
    # The formula of that version, whatever that of `train.default_recipe` has become.
    learning_rate = 3e-3 * (100 / config.epochs) ** 0.25 * (config.batch_size / 100) ** 0.5
    settings = {"learning_rate": learning_rate, "beta": BETA, **EARLIER_SETTINGS}
    network = {"hidden_units": HIDDEN_UNITS, "residual": False}
    return dataclasses.replace(
        config,
        architecture=config.architecture._replace(**_not_typed(network, given)),
        **_not_typed(settings, given),
    )


def _not_typed(settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in given}
