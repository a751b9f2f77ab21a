"""Hyperparameters of the TensorFlow trainer, which has only the hyperparameters that both trainers have."""

from microjobs.trainer.hyperparameters import TrainerHyperparameters as Hyperparameters

__all__ = ["Hyperparameters"]
