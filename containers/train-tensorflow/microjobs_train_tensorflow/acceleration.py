"""What a GPU can do faster, and only a GPU: mixed precision and XLA, by hyperparameter."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from .hyperparameters import Hyperparameters

T = TypeVar("T", bound=Callable[..., Any])

logger = logging.getLogger("microjobs")


def has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def precision(hyperparameters: Hyperparameters) -> str:
    """Keras's name of what layers compute in: bfloat16 has the range of single precision, so losses need no scaling."""
    return "mixed_bfloat16" if hyperparameters.mixed_precision and has_gpu() else "float32"


def compiled(function: T, hyperparameters: Hyperparameters) -> T:
    """The function as the training step calls it."""
    if not hyperparameters.compile or not has_gpu():
        return function
    faster: T = tf.function(function, jit_compile=True)
    return faster


def announce(hyperparameters: Hyperparameters) -> None:
    """One line on what was asked for: that it is in use, or that there is no GPU to use it on."""
    asked = [name for name in ("mixed_precision", "compile") if getattr(hyperparameters, name)]
    if asked and has_gpu():
        logger.info("with %s", " and ".join(asked))
    elif asked:
        logger.info("without %s: they are for GPUs, and there is none", " and ".join(asked))
