"""The two models: the straight line of the notebook, and a multilayer perceptron."""

import torch
from torch import nn

from microjobs.trainer.training import HIDDEN_UNITS


class LinearRegressionModel(nn.Module):  # type: ignore[misc]  # the host has no PyTorch to check against
    """`weight * x + bias`, both random at the start; with several features, the sum over them."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features))
        self.bias = nn.Parameter(torch.randn(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predictions of shape (rows, 1) for x of shape (rows, features)."""
        return (self.weight * x).sum(dim=1, keepdim=True) + self.bias


def mlp(features: int) -> nn.Sequential:
    """Two hidden ReLU layers and one output."""
    layers: list[nn.Module] = []
    for units in HIDDEN_UNITS:
        layers += [_dense(features, units), nn.ReLU()]
        features = units
    return nn.Sequential(*layers, _dense(features, 1))


def _dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    # He's initialisation, made for ReLU, and the same as in the TensorFlow trainer.
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def build(model: str, features: int) -> nn.Module:
    """A new network of the kind `mlp` or `linear`."""
    return LinearRegressionModel(features) if model == "linear" else mlp(features)


def start_at(network: nn.Module, mean_target: float) -> None:
    """Let an MLP predict the mean target at first: the epochs go into what differs between rows."""
    if isinstance(network, nn.Sequential):
        nn.init.constant_(network[-1].bias, mean_target)
