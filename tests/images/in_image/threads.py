"""Checks `use_one_thread_for_small_steps` for large steps, a number of threads that the user has set, and small steps.

Runs in the PyTorch image.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(os.environ["MICROJOBS_JOB"])))

import torch

from microjobs_train_pytorch.framework import use_one_thread_for_small_steps
from microjobs_train_pytorch.network import build_network

network = build_network("mlp", 13)
torch.set_num_threads(3)
use_one_thread_for_small_steps(network, rows_per_step=160_000)
assert torch.get_num_threads() == 3, torch.get_num_threads()
os.environ["OMP_NUM_THREADS"] = "3"
use_one_thread_for_small_steps(network, rows_per_step=128)
assert torch.get_num_threads() == 3, torch.get_num_threads()
del os.environ["OMP_NUM_THREADS"]
use_one_thread_for_small_steps(network, rows_per_step=128)
assert torch.get_num_threads() == 1, torch.get_num_threads()
