"""Settings that make training faster on a GPU: mixed precision and XLA."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from .hyperparameters import Hyperparameters

T = TypeVar("T", bound=Callable[..., Any])


def has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def choose_precision(hyperparameters: Hyperparameters) -> str:
    """Return Keras's name of the precision; bfloat16 has the range of single precision, so losses need no scaling."""
    return "mixed_bfloat16" if hyperparameters.mixed_precision and has_gpu() else "float32"


def compile_function(function: T, hyperparameters: Hyperparameters) -> T:
    """Return the function, compiled if hyperparameter `compile` is set and there is a GPU."""
    if not hyperparameters.compile or not has_gpu():
        return function
    compiled: T = tf.function(function, jit_compile=True)
    return compiled
