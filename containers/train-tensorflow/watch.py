"""Keras's callback of this job: it follows the losses, and ends the epochs when a stop is asked for."""

from typing import Any

import keras

from microjobs.stopping import StopRequest
from microjobs.training import History


class Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no type hints
    """Raises UserError when a loss is not finite any more."""

    def __init__(self, history: History, stop: StopRequest) -> None:
        super().__init__()
        self.losses = history
        self.stop = stop

    def on_train_batch_end(self, *_: object, **__: object) -> None:
        if self.stop:
            self.model.stop_training = True  # Keras tests what it has, then ends

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.losses.add(epoch, logs["loss"], logs["val_loss"])
