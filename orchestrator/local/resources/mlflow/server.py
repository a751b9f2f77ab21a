"""Running MLflow servers: tracking servers and apps."""

import logging
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import Change, EventQueue
from microjobs_orchestrator.local.lifecycle.hosts import SHUTDOWN_GRACE_PERIOD
from microjobs_orchestrator.local.lifecycle.job import MAX_REASON_CHARACTERS
from microjobs_orchestrator.local.resources.mlflow import process
from microjobs_orchestrator.local.resources.mlflow.kinds import (
    RUNNING_STATUSES,
    STATUS_AFTER_FAILURE,
    STATUS_AFTER_SUCCESS,
    ServerStatus,
)
from microjobs_orchestrator.local.resources.models.serving import StoppedError
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, Program
from microjobs_orchestrator.local.state import Record
from microjobs_orchestrator.local.trees import discard

logger = logging.getLogger(__name__)

FAILURE_REASON = "FailureReason"
"""The member of the stored description with the reason of a failure. AWS's descriptions do not have this member."""
FAILURE_REASON_LINE_COUNT = 3
"""The number of the process's last lines that the reason of a failure contains."""
LOG_STREAM = "mlflow"


def explain_missing_response(record: Record) -> str:
    """Return the reason why a server does not answer requests."""
    reason = record.description.get(FAILURE_REASON)
    return f"{record.arn} does not answer: its status is {record.status}{f', because {reason}' if reason else ''}"


def delete_server(context: Context, kind: Kind, name: str) -> None:
    """Delete the data and the record of a server that does not run. Its artifacts stay in their bucket.

    First, move the data to the work folder, where a new server with the same name does not find it. If the removal
    fails, the next start of the local server removes the rest, because it clears the work folder.
    """
    folder = context.home.mlflow / kind.arn_type / name
    with suppress(OSError):  # the server has no data, or `discard` removes data that cannot be moved
        folder = folder.rename(context.get_work_folder(f"{kind.arn_type}/deleted-{uuid.uuid4().hex}"))
    discard(folder)
    context.state.delete(kind.arn_type, name)


class MlflowServer:
    """Runs the process of a tracking server or an app, from its creation or start until it fails, or is stopped or
    deleted."""

    def __init__(self, context: Context, kind: Kind, name: str) -> None:
        self.plan_name = f"{kind.arn_type}/{name}"
        self.events = EventQueue()
        self._context = context
        self._kind = kind
        self._name = name
        self._arn = format_arn(self.plan_name, context.settings.region)
        self._program: Program | None = None
        self._last_lines = deque[str](maxlen=FAILURE_REASON_LINE_COUNT)
        self.has_failed = False
        """Whether the thread that calls `run` ends, or has ended, because of a failure. Then only a new thread can
        start the server again."""

    def recover(self, hosts: Sequence[Host]) -> None:  # noqa: ARG002  the process ended with the earlier local server
        self.run()

    def run(self) -> None:
        try:
            self._start()
            while not self.has_failed and not self._is_ending():
                self._handle_changes()
        except Exception as error:
            logger.exception("%s failed", self.plan_name)
            self._fail(f"InternalServerError: {type(error).__name__}: {error}; see the server's log")
        finally:
            self._stop_program()
            self._settle()

    def _handle_changes(self) -> None:
        record = self._read()
        if record is not None and record.status == ServerStatus.UPDATING:
            self._stop_program()
            self._start()
        elif self._program is None or self._program.exit_code is not None:
            code = None if self._program is None else self._program.exit_code
            self._fail(f"`mlflow server` ended with exit code {code}: {' '.join(self._last_lines)}")
        else:
            self.events.wait()

    # --- the record ---

    def _read(self) -> Record | None:
        return self._context.state.get(self._kind.arn_type, self._name)

    def _is_ending(self) -> bool:
        record = self._read()
        should_run = record is not None and record.status in RUNNING_STATUSES
        return self.events.stop_reason is not None or not should_run

    def _set_status(self, record: Record, status: str, reason: str | None = None) -> None:
        """Change the status, unless it has changed since the record was read."""
        changes: dict[str, Any] = {self._kind.status_member: str(status), FAILURE_REASON: reason}
        self._context.state.update(record.kind, record.name, changes, str(status), only_if=(record.status,))

    def _fail(self, reason: str) -> None:
        """End `run` because of a failure. Store the reason, unless the server is being stopped or deleted."""
        self.has_failed = True
        record = self._read()
        if record is not None and record.status in RUNNING_STATUSES:
            lifecycle = self._kind.lifecycle
            # an app has no operation Start, and therefore no status StartFailed
            can_be_started = lifecycle is not None and ServerStatus.START_FAILED in lifecycle.statuses
            default = ServerStatus.START_FAILED if can_be_started else ServerStatus.UPDATE_FAILED
            status = STATUS_AFTER_FAILURE.get(ServerStatus(record.status), default)
            logger.warning("%s is %s: %s", self.plan_name, status, reason)
            self._set_status(record, status, reason[:MAX_REASON_CHARACTERS])

    def _settle(self) -> None:
        """Set the final status of a server that was stopped, or remove a server that was deleted."""
        record = self._read()
        if record is not None and record.status == ServerStatus.STOPPING:
            self._set_status(record, ServerStatus.STOPPED)
        elif record is not None and record.status == ServerStatus.DELETING:
            delete_server(self._context, self._kind, self._name)

    # --- the process ---

    def _start(self) -> None:
        """Start the process, and store the status after the start."""
        record = self._read()
        if record is None or self._is_ending():
            return
        try:
            self._start_program(record)
        except StoppedError:
            return
        except CannotRunError as error:
            lines = f": {' '.join(self._last_lines)}" if self._last_lines else ""
            if self.events.stop_reason is None:  # otherwise, the stop request canceled the installation
                self._fail(f"{error}{lines}")
            return
        status = ServerStatus(record.status)
        self._set_status(record, STATUS_AFTER_SUCCESS.get(status, status))

    def _start_program(self, record: Record) -> None:
        folder = self._context.home.mlflow / self._kind.arn_type / self._name
        program = process.start(self._context, folder, record.description)
        self._program = program
        self._last_lines.clear()
        threading.Thread(target=self._follow, args=(program,), name=f"log {self.plan_name}", daemon=True).start()
        process.wait_until_healthy(program, self.events.stopped)
        self._context.mlflow_connectors.add(self._arn, process.make_connector(program))

    def _follow(self, program: Program) -> None:
        """Copy the output to the log stream, and report the end of the process."""
        stream = self._context.logs.create(self._kind.log_group(self._name), LOG_STREAM)
        with stream.writer() as write:
            for line in program.lines():
                write(line)
                self._last_lines.append(line.text.decode(errors="replace"))
        self.events.send(Change.RESOURCE_CHANGED)

    def _stop_program(self) -> None:
        self._context.mlflow_connectors.remove(self._arn)
        if self._program is not None:
            self._program.stop(SHUTDOWN_GRACE_PERIOD)
            self._program = None
