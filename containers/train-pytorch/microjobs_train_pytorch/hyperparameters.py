"""Hyperparameters of the PyTorch trainer."""

from dataclasses import dataclass

from microjobs.hyperparameters import parameter
from microjobs.trainer.hyperparameters import TrainerHyperparameters


@dataclass(frozen=True)
class Hyperparameters(TrainerHyperparameters):
    """Hyperparameters with their defaults and ranges. `python -m microjobs --help` prints them."""

    model: str = parameter("mlp", "mlp: two hidden layers; linear: weights and a bias", choices=("mlp", "linear"))
    eval_every: int = parameter(1, "epochs from one test to the next", minimum=1)

    @property
    def test_interval(self) -> int:
        return self.eval_every
