"""What makes training faster: threads on a CPU; on a GPU mixed precision and torch.compile, by hyperparameter."""

import logging
import os
import shutil

import torch
from torch import nn

from .hyperparameters import Hyperparameters

logger = logging.getLogger("microjobs")

SMALL_STEP = 10_000_000
"""Rows of a batch times weights up to which more threads make no step faster on an idle machine."""


def choose_threads(network: nn.Module, batch: int) -> None:
    """One thread for small steps, unless OMP_NUM_THREADS says something else.

    The threads of a step wait for each other many times. Where another job has one of the cores, each time takes a
    turn of that job: a training beside another job was more than 20 times slower than on one thread.

    Args:
        batch: rows of a step.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    if "OMP_NUM_THREADS" not in os.environ and batch * weights <= SMALL_STEP:
        torch.set_num_threads(1)


def autocast(device: torch.device, hyperparameters: Hyperparameters) -> torch.autocast:
    """The context of a forward pass: bfloat16 has the range of single precision, so losses need no scaling."""
    enabled = hyperparameters.mixed_precision and device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def compiled(model: nn.Module, device: torch.device, hyperparameters: Hyperparameters) -> nn.Module:
    """The model as the training calls it."""
    if not hyperparameters.compile or device.type != "cuda":
        return model
    faster: nn.Module = torch.compile(model, backend=_backend())
    return faster


def _backend() -> str:
    """PyTorch's own compiler makes kernels, which takes a C compiler; without one, CUDA graphs save the launches."""
    return "inductor" if shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") else "cudagraphs"


def announce(device: torch.device, hyperparameters: Hyperparameters) -> None:
    """One line on what was asked for: that it is in use, or that there is no GPU to use it on."""
    asked = [name for name in ("mixed_precision", "compile") if getattr(hyperparameters, name)]
    if asked and device.type == "cuda":
        logger.info("with %s", " and ".join(asked))
    elif asked:
        logger.info("without %s: they are for GPUs, and there is none", " and ".join(asked))
