"""Settings that make training faster: threads on a CPU, mixed precision and torch.compile on a GPU."""

import os
import shutil

import torch
from torch import nn

from .hyperparameters import Hyperparameters

SMALL_STEP = 10_000_000
"""Rows of a batch times weights. Up to this product, more threads make no step faster on an idle machine."""


def set_threads(network: nn.Module, rows_per_step: int) -> None:
    """Use one thread for small steps, unless OMP_NUM_THREADS is set.

    The threads of a step wait for each other many times. If another job uses one of the cores, each wait lasts for a
    time slice of that job: such a training was more than 20 times slower than on one thread.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    if "OMP_NUM_THREADS" not in os.environ and rows_per_step * weights <= SMALL_STEP:
        torch.set_num_threads(1)


def autocast(device: torch.device, hyperparameters: Hyperparameters) -> torch.autocast:
    """Return the context of a forward pass; bfloat16 has the range of single precision, so losses need no scaling."""
    enabled = hyperparameters.mixed_precision and device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def compile_model(model: nn.Module, device: torch.device, hyperparameters: Hyperparameters) -> nn.Module:
    """Return the model, compiled if hyperparameter `compile` is set and there is a GPU."""
    if not hyperparameters.compile or device.type != "cuda":
        return model
    compiled: nn.Module = torch.compile(model, backend=_choose_backend())
    return compiled


def _choose_backend() -> str:
    """Return Inductor, which needs a C compiler; without one, CUDA graphs, which save the launches of kernels."""
    return "inductor" if shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") else "cudagraphs"
