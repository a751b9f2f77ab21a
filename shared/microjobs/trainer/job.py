"""The training job of both trainers: reads channels, trains with the image's framework, writes a model bundle."""

import json
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from microjobs.contract import Layout, ResourceConfig, read_training_resource_config
from microjobs.distributed import Program, launch
from microjobs.errors import Stopped
from microjobs.files import atomic_fill
from microjobs.stopping import StopRequest, stop_request
from microjobs.trainer.checkpoints import Checkpoints, open_job_checkpoints
from microjobs.trainer.data import load_data
from microjobs.trainer.framework import Framework, Training
from microjobs.trainer.hyperparameters import TrainerHyperparameters
from microjobs.trainer.process_data import ProcessData
from microjobs.trainer.progress import TrainingProgress
from microjobs.trainer.results import TrainingResult, write_results
from microjobs.trainer.training_loop import TrainingLoop

H = TypeVar("H", bound=TrainerHyperparameters)

logger = logging.getLogger("microjobs")


def train(
    hyperparameters: H,
    load_framework: Callable[[], Callable[[H], Framework]],
    find_worker_launcher: Callable[[ResourceConfig], Program | None],
) -> None:
    """Train, test and save; resume from the newest checkpoint if there is one. After a stop signal, save and end.

    Args:
        load_framework: function that imports the framework, which takes seconds, and returns its class.
        find_worker_launcher: function that returns the program that starts this host's worker processes, or None if
            this process trains the model itself.

    Raises:
        UserError: the data is invalid, the training diverged, or the checkpoint belongs to another training.
        PlatformError: another host was lost.
        RuntimeError: an exported model predicts other values than the trained network.
        Stopped: the signal arrived before the first step.
    """
    layout = Layout.from_environment()
    resources = read_training_resource_config(layout)
    if (program := find_worker_launcher(resources)) is not None:
        launch(program, resources)
        return
    data = load_data(layout)  # the data is loaded before the framework, so that invalid data is reported at once
    framework_class = load_framework()
    # Stop signals set a flag until the end of the job, so that a second signal does not interrupt the saving.
    with stop_request() as stop:
        framework = framework_class(hyperparameters)
        TrainingProcess(layout, hyperparameters, framework, ProcessData(data, framework.group), stop).run()


@dataclass
class TrainingProcess:
    """The work of one process of a training job."""

    layout: Layout
    hyperparameters: TrainerHyperparameters
    framework: Framework
    data: ProcessData
    stop: StopRequest

    def run(self) -> None:
        """Train and save; see `train`."""
        group, checkpoints = self.framework.group, self._open_checkpoints()
        if group.is_first:
            logger.info("%s %s on %s", self.framework.name, self.framework.version, group.describe())
            _log_acceleration(self.hyperparameters, has_gpu=group.has_gpu)
        training = self.framework.create_training(self.data, self.stop)
        progress = self._resume(training, checkpoints)
        batches = self.data.make_batches(self.hyperparameters)
        TrainingLoop(training, progress, batches, self.hyperparameters, checkpoints if group.is_first else None).run()
        # the job was stopped before the first step; all processes raise `Stopped`, even those without a signal
        if progress.position == (0, 0):
            raise Stopped(self.stop.signal_number or signal.SIGTERM)
        if group.is_first or self.data.local_data.sharded_splits:
            self._save(training, progress, checkpoints)
        group.leave()

    def _open_checkpoints(self) -> Checkpoints:
        # Builds of one version for different devices (2.13.0+cpu, 2.13.0+cu130) can use each other's checkpoints.
        version = {self.framework.name: self.framework.version.partition("+")[0]}
        fingerprint = {**version, **self.hyperparameters.fingerprint(), **self.data.fingerprint()}
        return open_job_checkpoints(self.layout, fingerprint, self.hyperparameters.keep_checkpoints)

    def _resume(self, training: Training, checkpoints: Checkpoints) -> TrainingProgress:
        """Load the newest checkpoint in all processes. Only the first process reads the folder of the checkpoints.

        Raises:
            UserError: the checkpoint belongs to another training.
        """
        group, state, content = self.framework.group, None, b""
        if group.is_first and (checkpoint := checkpoints.restore()) is not None:
            state, content = checkpoint.state, (checkpoint.folder / training.checkpoint_file).read_bytes()
        state = json.loads(group.broadcast_bytes(json.dumps(state).encode()))
        if state is None:
            return TrainingProgress()
        training.load(group.broadcast_bytes(content))
        progress = TrainingProgress.from_json(state)
        progress.log_resumption(self.data.rows, self.hyperparameters.epochs, checkpoints.folder)
        return progress

    def _save(self, training: Training, progress: TrainingProgress, checkpoints: Checkpoints) -> None:
        """Write the model bundle in the first process, with the predictions of all processes."""
        best_epoch = None if training.best_weights is None else progress.history.best_epoch
        training.use_best_weights()
        local_data = self.data.local_data
        data, train_predictions, test_predictions = self.data.gather_results(
            training.predict(local_data.x_train), training.predict(local_data.x_test)
        )
        if not self.framework.group.is_first:
            return
        result = TrainingResult(
            self.framework.name.lower(),
            progress.count_epochs(self.data.rows),
            progress.seconds,
            progress.history,
            train_predictions,
            test_predictions,
            best_epoch,
        )
        with atomic_fill(self.layout.model):
            training.export(data, self.layout.model)
            write_results(self.layout, self.hyperparameters, data, result)
            self._close_checkpoints(result.epochs, checkpoints)

    def _close_checkpoints(self, epochs: float, checkpoints: Checkpoints) -> None:
        """Remove temporary checkpoints of a finished job. For a stopped job, log how to resume."""
        if not self.stop:
            checkpoints.close()
            return
        message = f"stopped by {self.stop.signal_name} after {epochs:.10g} of {self.hyperparameters.epochs} epochs"
        setting = "folder" if checkpoints.is_temporary else "CheckpointConfig"
        resume_note = f"checkpoint in {checkpoints.folder}: start the job again with the same {setting} to resume"
        read_only_note = f"no checkpoint is saved, because {checkpoints.folder} is read-only"
        logger.info("%s; the model is saved; %s", message, resume_note if checkpoints.is_enabled else read_only_note)


def _log_acceleration(hyperparameters: TrainerHyperparameters, *, has_gpu: bool) -> None:
    """Log which GPU settings are used, or that they are ignored without a GPU."""
    requested = [name for name in ("mixed_precision", "compile") if getattr(hyperparameters, name)]
    if requested and has_gpu:
        logger.info("with %s", " and ".join(requested))
    elif requested:
        logger.info("no GPU: training without %s", " and ".join(requested))
