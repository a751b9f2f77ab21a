"""PyTorch as the framework of the trainer."""

from dataclasses import dataclass, field

import torch

from microjobs.stopping import StopRequest
from microjobs.trainer.process_data import ProcessData

from .acceleration import compile_model, set_threads
from .group import Group, join
from .hyperparameters import Hyperparameters
from .network import build_network, set_output_bias
from .training import Training


@dataclass(frozen=True)
class PyTorch:
    """See `microjobs.trainer.framework.Framework`."""

    hyperparameters: Hyperparameters
    group: Group = field(default_factory=join)
    name = "PyTorch"
    model_format = "pytorch"
    version = str(torch.__version__)

    @property
    def has_gpu(self) -> bool:
        return bool(self.group.device.type == "cuda")

    def begin(self, data: ProcessData, stop: StopRequest) -> Training:
        torch.manual_seed(self.hyperparameters.seed)
        network = build_network(self.hyperparameters.model, data.data.features)
        set_output_bias(network, data.mean_target)
        set_threads(network, self.hyperparameters.batch_size or data.rows)
        network.to(self.group.device)
        model = compile_model(self.group.parallel(network), self.group.device, self.hyperparameters)
        return Training(network, model, data, self.hyperparameters, self.group, stop)
