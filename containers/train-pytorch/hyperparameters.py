"""What the PyTorch trainer takes: what both trainers take, the model, and how often to test it."""

from dataclasses import dataclass

from microjobs.hyperparameters import TrainerHyperparameters, parameter


@dataclass(frozen=True)
class Hyperparameters(TrainerHyperparameters):
    """Names, defaults and ranges; `python -m microjobs --help` prints them."""

    model: str = parameter("mlp", "mlp has two hidden layers; linear is weight and bias", choices=("mlp", "linear"))
    eval_every: int = parameter(1, "epochs between two lines of the log", minimum=1)
