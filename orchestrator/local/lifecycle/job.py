"""The steps that training and processing share: plan, start the hosts, attend to them, collect, clean up."""

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from microjobs.contract import Layout
from microjobs.job_secret import write_job_secret
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import find_kind
from microjobs_orchestrator.local.lifecycle import group
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.group import Control, Outcome, Why
from microjobs_orchestrator.local.logs import Stream
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Host, Line, MachineFailedError, Plan
from microjobs_orchestrator.local.state import Record
from microjobs_orchestrator.local.trees import discard
from microjobs_orchestrator.terminal import safe

logger = logging.getLogger(__name__)

LAYOUT = Layout()
"""The contract's paths as requests spell them."""

REASON_LIMIT = 1024
"""Characters of a FailureReason."""
SECRET_BYTES = 32
"""Random bytes in the secret of a job."""
READ_BYTES = 1 << 20
"""Of a small file that a host left, which may be large."""
INTERNAL = "InternalServerError"
"""What SageMaker calls failures that are not the job's."""


PREFIXES = ("ClientError: ", "AlgorithmError: ", f"{INTERNAL}: ")
"""How SageMaker's reasons begin: the user's mistake, the container's failure, the service's failure."""


def reason_of(error: CannotRunError | ServiceError) -> str:
    """A FailureReason for what kept a job from being started or collected."""
    if str(error).startswith(PREFIXES):
        return str(error)
    is_ours = isinstance(error, MachineFailedError) or (isinstance(error, ServiceError) and error.status >= 500)
    return f"{INTERNAL if is_ours else 'ClientError'}: {error}"


class Job(ABC):
    """One job from its request to its end. `run` and `resume` return when all of it is over."""

    kind: ClassVar[str]
    """As in its ARN and in the state."""

    def __init__(self, context: Context, record: Record) -> None:
        self.context = context
        self.request = record.request
        self.name = record.name
        self.arn = record.arn
        self.created = record.created
        self.control = Control()

    @property
    def plan_name(self) -> str:
        return f"{self.kind}/{self.name}"

    def run(self) -> None:
        self._guarded(self._steps)

    def resume(self, hosts: Sequence[Host]) -> None:
        """Go on with hosts that an earlier server started."""
        self._guarded(lambda: self._steps(hosts))

    def lose(self) -> None:
        """Go on without the hosts, which are gone since an earlier server ended, or end for that reason."""
        reason = f"{INTERNAL}: the local server ended while the job ran"
        was_stopped = self.control.why is not None
        self._guarded(lambda: self._steps() if was_stopped or self.starts_over(reason) else self.failed(reason))

    def _guarded(self, steps: Callable[[], None]) -> None:
        try:
            steps()
        except (CannotRunError, ServiceError) as error:
            self.failed(reason_of(error))
        except Exception as error:
            logger.exception("%s failed", self.plan_name)
            self.failed(f"{INTERNAL}: {type(error).__name__}: {error}; see the server's log")
        finally:
            self.context.runtime.remove(self.plan_name)
            discard(self.folder)

    def _steps(self, hosts: Sequence[Host] = ()) -> None:
        """All of it, from hosts that run already or from the beginning, as often as it takes."""
        while True:
            try:
                hosts = hosts or self._start()
            except MachineFailedError as error:
                reason = f"{INTERNAL}: {error}"
                if not self.starts_over(reason):
                    self.failed(reason)
                    return
                continue
            outcome = self._attend(hosts) if hosts else Outcome()
            if not self.goes_on(hosts, outcome):
                self.ended(hosts, outcome)
                return
            hosts = ()

    def _start(self) -> Sequence[Host]:
        """The hosts; none if the job was stopped before there were any."""
        if self.control.why is None:
            self.preparing()
            self.context.runtime.prepare(self.context.image(self.image_uri))
            plan = self.plan(self.context.new_work_folder(self.plan_name))
            _hand_out_secret(plan)
            for host in plan.hosts:
                self.stream(host.name).begin()
        return self.context.runtime.start(plan) if self.control.why is None else ()

    def _attend(self, hosts: Sequence[Host]) -> Outcome:
        streams = {host.name: self.stream(host.name) for host in hosts}
        passed = self.running(hosts)
        left = max(0.0, self.max_runtime - passed)
        return group.run(
            hosts, streams, self.control, seconds=left, on_line=self.on_line, on_interruption=self.interrupted
        )

    # --- what a kind of job fills in ---

    @property
    @abstractmethod
    def image_uri(self) -> str:
        """The image of the request."""

    @property
    def max_runtime(self) -> int:
        """Seconds; a day unless the request says otherwise, as on SageMaker."""
        return int(self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86_400))

    @abstractmethod
    def preparing(self) -> None:
        """Describe that image and inputs are being fetched."""

    @abstractmethod
    def plan(self, folder: Path) -> Plan:
        """What to run; inputs and configuration are laid out in the folder."""

    @abstractmethod
    def running(self, hosts: Sequence[Host]) -> float:
        """Describe that the hosts run; the seconds of `max_runtime` that have passed."""

    @abstractmethod
    def ended(self, hosts: Sequence[Host], outcome: Outcome) -> None:
        """Collect what the hosts left and describe the end."""

    def goes_on(self, hosts: Sequence[Host], outcome: Outcome) -> bool:  # noqa: ARG002  most kinds do not
        """Whether the job starts over on new hosts, although these have ended; if so, nothing is left of them."""
        return False

    def starts_over(self, reason: str) -> bool:  # noqa: ARG002  most kinds do not
        """Whether the job starts over, although it lost its hosts or got none."""
        return False

    def interrupted(self) -> None:  # noqa: B027  most kinds never are
        """Describe that the hosts are being taken away."""

    @abstractmethod
    def failed(self, reason: str) -> None:
        """Describe a failure."""

    @abstractmethod
    def on_line(self, line: Line) -> None:
        """Called with every line of output, from the hosts' threads."""

    # --- what they share ---

    @property
    def folder(self) -> Path:
        return self.context.work_folder(self.plan_name)

    def describe(self, status: str | None = None, **changes: Any) -> None:
        """Change the description; None leaves a member out. Reasons lose control characters, since SDKs print them."""
        members = {name: value for name, value in changes.items() if value is not None}
        members |= {name: safe(members[name]) for name in ("FailureReason", "ExitMessage") if name in members}
        self.context.state.update(self.kind, self.name, members, status)

    def stream(self, host: str) -> Stream:
        """A host's log stream, named as SageMaker names it."""
        return self.context.logs.create(
            find_kind(self.kind).log_group(self.name), f"{self.name}/{host}-{self.created * 1000:.0f}"
        )

    def note(self, sentence: str) -> None:
        """Tell the user something that the job itself cannot know, in its log."""
        logger.info("%s: %s", self.plan_name, sentence)
        self.stream("algo-1").note(sentence)

    def read(self, hosts: Sequence[Host], path: Path) -> dict[str, bytes]:
        """A small file of the contract, by the hosts that have it."""
        found = {}
        for host in hosts:
            folder = self.folder / "read" / host.name
            entry = (host.copy(str(path), folder) or {}).get(path.name)
            if entry is not None and entry.content is not None:
                with entry.content.open("rb") as file:
                    found[host.name] = file.read(READ_BYTES)
            discard(folder)
        return found

    def failure(self, hosts: Sequence[Host], outcome: Outcome) -> str:
        """The reason of a failure: what the host that failed first wrote down, and how it ended."""
        name = outcome.first_failed or next(iter(outcome.exits))
        if outcome.exits[name].starved:
            return f"ClientError: Data download failed: {outcome.exits[name].reason}"
        written = self.read([host for host in hosts if host.name == name], LAYOUT.failure).get(name, b"")
        text, ended = written.decode(errors="replace").strip(), outcome.exits[name]
        said = text or ended.reason or "See job logs for more information"
        known = f", {ended.reason}" if text and ended.reason else ""
        where = f" on {name}" if len(hosts) > 1 else ""
        ending = f"{known}, exit code: {ended.code}{where}"
        whose = INTERNAL if ended.lost else "AlgorithmError"
        return f"{whose}: {said[: REASON_LIMIT - len(ending) - len(whose) - 2]}{ending}"

    def was_shut_down(self) -> bool:
        return self.control.why is Why.SHUTDOWN


def _hand_out_secret(plan: Plan) -> None:
    """Give the hosts of a job a secret by which they know each other, a new one each time that they start."""
    if len(plan.hosts) > 1:
        secret = secrets.token_hex(SECRET_BYTES)
        for host in plan.hosts:
            write_job_secret(Layout(host.files), secret)
