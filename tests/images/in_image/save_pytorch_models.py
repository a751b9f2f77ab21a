"""Writes a linear model as a TorchScript archive, `model.pt`, and as a state_dict, `weights.pth`. Runs in the image."""

import warnings

import torch

from microjobs.contract import Layout

FOLDER = Layout.from_environment().model

network = torch.nn.Linear(3, 1)
network.load_state_dict({"weight": torch.tensor([[1.0, 2.0, 3.0]]), "bias": torch.tensor([0.5])})
FOLDER.mkdir(exist_ok=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    # TorchScript is deprecated, but users have such archives.
    torch.jit.save(torch.jit.script(network), str(FOLDER / "model.pt"))
torch.save(network.state_dict(), FOLDER / "weights.pth")
