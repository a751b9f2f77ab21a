"""Hyperparameters of the TensorFlow trainer."""

from dataclasses import dataclass

from microjobs.hyperparameters import parameter
from microjobs.trainer.hyperparameters import TrainerHyperparameters


@dataclass(frozen=True)
class Hyperparameters(TrainerHyperparameters):
    """Names, defaults and ranges; `python -m microjobs --help` prints them."""

    mixed_precision: bool = parameter(False, "on GPUs, whether layers compute in bfloat16; weights stay as they are")
    compile: bool = parameter(False, "on GPUs, whether XLA compiles the training step")
