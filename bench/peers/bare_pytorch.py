"""Minimal PyTorch script: loads arrays, trains a network and saves it. Arguments: ROOT EPOCHS BATCH_SIZE."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

root, epochs, batch_size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def load_split(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    folder = root / "input" / "data" / split
    x, y = (torch.from_numpy(np.load(folder / f"{name}_{split}.npy")) for name in "xy")
    return x, y[:, None]


torch.manual_seed(42)
(x, y), (x_test, y_test) = load_split("train"), load_split("test")
network = nn.Sequential(nn.Linear(x.shape[1], 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer, loss_fn = torch.optim.SGD(network.parameters(), lr=0.01), nn.MSELoss()
for epoch in range(epochs):
    network.train()
    loss_sum = 0.0
    for row_indices in torch.randperm(len(x)).split(batch_size):
        loss = loss_fn(network(x[row_indices]), y[row_indices])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 20)
        optimizer.step()
        loss_sum += loss.item() * len(row_indices)
    network.eval()
    with torch.inference_mode():
        test_loss = loss_fn(network(x_test), y_test).item()
    print(f"Epoch: {epoch} | Train loss: {loss_sum / len(x):.3f} | Test loss: {test_loss:.3f}", flush=True)
torch.save(network.state_dict(), root / "model" / "model.pth")
variable_axes = {"features": {0: "rows"}, "predictions": {0: "rows"}}
torch.onnx.export(
    network,
    (x[:2],),
    root / "model" / "model.onnx",
    input_names=["features"],
    output_names=["predictions"],
    dynamic_axes=variable_axes,
    dynamo=False,  # this is the faster of PyTorch's two exporters
)
