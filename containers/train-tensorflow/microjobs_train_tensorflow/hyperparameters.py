"""Hyperparameters of the TensorFlow trainer: only those of both trainers."""

from microjobs.trainer.hyperparameters import TrainerHyperparameters as Hyperparameters

__all__ = ["Hyperparameters"]
