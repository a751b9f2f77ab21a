"""Runs in the PyTorch image: small steps take one thread, large ones and those of a user's choice as many as before."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(os.environ["MICROJOBS_JOB"])))

import torch

from microjobs_train_pytorch.acceleration import choose_threads
from microjobs_train_pytorch.network import build

network = build("mlp", 13)
torch.set_num_threads(3)
choose_threads(network, 160_000)
assert torch.get_num_threads() == 3, torch.get_num_threads()
os.environ["OMP_NUM_THREADS"] = "3"
choose_threads(network, 128)
assert torch.get_num_threads() == 3, torch.get_num_threads()
del os.environ["OMP_NUM_THREADS"]
choose_threads(network, 128)
assert torch.get_num_threads() == 1, torch.get_num_threads()
