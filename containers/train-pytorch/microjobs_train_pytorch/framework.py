"""PyTorch as the framework of the trainer, with threads on a CPU and torch.compile on a GPU."""

import os
import shutil
from dataclasses import dataclass, field

import torch
from torch import nn

from microjobs.stopping import StopRequest
from microjobs.trainer.process_data import ProcessData

from .group import Group, join
from .hyperparameters import Hyperparameters
from .network import build_network, set_output_bias
from .training import Training

MAX_SINGLE_THREAD_PRODUCT = 10_000_000
"""Maximum product of the rows per batch and the number of weights for which one thread is used. Up to this size, more
threads do not make a step faster."""


@dataclass(frozen=True)
class PyTorch:
    """See `microjobs.trainer.framework.Framework`."""

    hyperparameters: Hyperparameters
    group: Group = field(default_factory=join)
    name = "PyTorch"
    version = str(torch.__version__)

    def create_training(self, data: ProcessData, stop: StopRequest) -> Training:
        torch.manual_seed(self.hyperparameters.seed)
        network = build_network(self.hyperparameters.model, data.local_data.features)
        set_output_bias(network, data.mean_target)
        use_one_thread_for_small_steps(network, self.hyperparameters.batch_size or data.rows)
        network.to(self.group.device)
        model = self.group.make_parallel(network)
        if self.hyperparameters.compile and self.group.has_gpu:
            model = torch.compile(model, backend=_choose_backend())
        return Training(network, model, data, self.hyperparameters, self.group, stop)


def use_one_thread_for_small_steps(network: nn.Module, rows_per_step: int) -> None:
    """Set the number of threads to one if steps are small and OMP_NUM_THREADS is not set.

    The threads of a step wait for each other many times. If another job uses one of the cores, each wait lasts for a
    time slice of that job. The training then took more than 20 times as long as on one thread.
    """
    weight_count = sum(parameter.numel() for parameter in network.parameters())
    if "OMP_NUM_THREADS" not in os.environ and rows_per_step * weight_count <= MAX_SINGLE_THREAD_PRODUCT:
        torch.set_num_threads(1)


def _choose_backend() -> str:
    """Return Inductor if a C compiler exists; otherwise CUDA graphs, which avoid separate launches of kernels."""
    return "inductor" if shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") else "cudagraphs"
