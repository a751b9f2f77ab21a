"""What the TensorFlow trainer takes: what both trainers take."""

from microjobs.hyperparameters import TrainerHyperparameters as Hyperparameters

__all__ = ["Hyperparameters"]
