"""Hyperparameters of JOB_NAME, checked before main.py is imported.

This module imports only `microjobs` and the standard library.
"""

from dataclasses import dataclass

from microjobs.hyperparameters import parameter


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters with their defaults and ranges. `python -m microjobs --help` prints them."""

    trim: float = parameter(0.0, "share of the lowest and of the highest targets to ignore", minimum=0, maximum=0.49)
