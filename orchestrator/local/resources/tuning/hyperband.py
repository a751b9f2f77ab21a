"""Strategy Hyperband: what its resources are. Source: botocore's model, HyperbandStrategyConfig.

A training job has used as many resources as it has printed values of the objective metric.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError

STRATEGY = "Hyperband"

EPOCHS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
"""Static hyperparameters that MaxResource is taken from."""
MOST = 20_000


@dataclass(frozen=True)
class Resources:
    """No job is stopped before the least, and each one behind the most."""

    least: int
    most: int


def read(config: Mapping[str, Any], static: Mapping[str, str]) -> Resources | None:
    """The resources of a tuning job's configuration; None if its strategy is another one.

    Raises:
        ValidationError: members do not go with the strategy, or MaxResource is not known or too large.
    """
    given = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    if config["Strategy"] != STRATEGY:
        if "StrategyConfig" in config:
            raise ValidationError(f"StrategyConfig is for the strategy Hyperband only, not for {config['Strategy']}.")
        return None
    if config.get("TrainingJobEarlyStoppingType", "Off") != "Off":
        raise ValidationError("TrainingJobEarlyStoppingType must be OFF to use Hyperband, which stops jobs itself.")
    resources = Resources(given.get("MinResource", 1), given.get("MaxResource") or _epochs(static))
    if not resources.least <= resources.most <= MOST:
        raise ValidationError(
            f"MaxResource {resources.most} must be at least MinResource, {resources.least}, and at most {MOST}."
        )
    return resources


def _epochs(static: Mapping[str, str]) -> int:
    known = [static[name] for name in EPOCHS if name in static]
    if not known or not re.fullmatch(r"\d{1,6}", known[0], re.ASCII):
        raise ValidationError(
            "MaxResource of HyperbandStrategyConfig is missing, and cannot be inferred from StaticHyperParameters: "
            f"give it, or one of {', '.join(EPOCHS)} as a number."
        )
    return int(known[0])
