"""Hyperparameters of both trainers. Standard library only."""

import dataclasses

from microjobs.hyperparameters import parameter


@dataclasses.dataclass(frozen=True)
class TrainerHyperparameters:
    """Hyperparameters of all frameworks, with their defaults and ranges."""

    epochs: int = parameter(70, "passes over the training rows", minimum=1)
    batch_size: int = parameter(128, "rows per step; 0: all rows", minimum=0)
    learning_rate: float = parameter(0.01, "step size of the optimizer", above=0)
    optimizer: str = parameter(
        "sgd", "the optimizer, with its framework's defaults", choices=("sgd", "adam", "rmsprop")
    )
    loss: str = parameter("mse", "loss function; l1 is the same as mae", choices=("mse", "mae", "l1", "huber"))
    seed: int = parameter(
        42, "seed of weights and shuffling: the same seed gives the same model", minimum=0, maximum=2**32 - 1
    )
    early_stopping: int = parameter(
        0, "number of epochs without a lower test loss that ends the training; 0: never", minimum=0
    )
    best_weights: bool = parameter(
        False, "whether the model has the weights with the lowest test loss, not those of the last epoch"
    )
    checkpoint_every: int = parameter(1, "epochs between checkpoints, more if saving them takes too long", minimum=1)
    keep_checkpoints: int = parameter(3, "number of checkpoints to keep", minimum=1)
    mixed_precision: bool = parameter(False, "on GPUs, whether layers compute in bfloat16; weights are float32")
    compile: bool = parameter(False, "on GPUs, whether the training step is compiled")

    def rows_per_step(self, rows: int) -> int:
        """Return the batch size for a training set of `rows` rows."""
        return min(self.batch_size or rows, rows)

    @property
    def test_interval(self) -> int:
        """Number of epochs from one test to the next."""
        return 1

    def is_tested(self, epoch: int) -> bool:
        """Return whether the test loss is computed after this epoch. It is always computed after the last epoch."""
        return epoch % self.test_interval == 0 or epoch == self.epochs - 1

    def fingerprint(self) -> dict[str, bool | int | float | str]:
        """Return the values that must be equal in a job and in the checkpoint from which it resumes."""
        ignored_names = ("epochs", "early_stopping", "checkpoint_every", "keep_checkpoints")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in ignored_names}
