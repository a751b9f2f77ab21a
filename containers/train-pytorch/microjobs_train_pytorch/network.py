"""The two models: a linear model, and a multilayer perceptron."""

import torch
from torch import nn

from microjobs.trainer.framework import HIDDEN_UNITS


class LinearRegressionModel(nn.Module):  # type: ignore[misc]  # PyTorch is installed only in the image
    """Computes the sum of `weight * x` over the features, plus `bias`. The weights and the bias are random at first."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features))
        self.bias = nn.Parameter(torch.randn(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return predictions of shape (rows, 1) for x of shape (rows, features)."""
        return (self.weight * x).sum(dim=1, keepdim=True) + self.bias


def build_network(model: str, features: int) -> nn.Module:
    """Return a new network. `model` is `mlp` or `linear`."""
    return LinearRegressionModel(features) if model == "linear" else _build_mlp(features)


def _build_mlp(features: int) -> nn.Sequential:
    """Return a network with two hidden ReLU layers and one output."""
    layers: list[nn.Module] = []
    for units in HIDDEN_UNITS:
        layers += [_build_layer(features, units), nn.ReLU()]
        features = units
    return nn.Sequential(*layers, _build_layer(features, 1))


def _build_layer(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    # He initialisation, which was designed for ReLU, as in the TensorFlow trainer.
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def set_output_bias(network: nn.Module, mean_target: float) -> None:
    """Let the predictions of a perceptron begin near the mean target. The epochs then learn the differences between
    rows."""
    if isinstance(network, nn.Sequential):
        nn.init.constant_(network[-1].bias, mean_target)


def predict(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return predictions of shape (rows, 1), in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        predictions: torch.Tensor = network(x)
        return predictions
