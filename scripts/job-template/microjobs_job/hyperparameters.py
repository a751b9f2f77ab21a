"""What JOB_NAME takes; checked before main.py is imported. Standard library only."""

from dataclasses import dataclass

from microjobs.hyperparameters import parameter


@dataclass(frozen=True)
class Hyperparameters:
    """Names, defaults and ranges."""

    trim: float = parameter(0.0, "share of the lowest and of the highest targets to leave out", minimum=0, maximum=0.49)
