"""A run of a workflow: it starts jobs, follows them to their end, remembers them, and stops what it started."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from microjobs_orchestrator.failures import JobFailedError, LauncherError
from microjobs_orchestrator.runs.backend import Backend
from microjobs_orchestrator.runs.costs import Usage, dollars, usage
from microjobs_orchestrator.runs.journal import Journal, JournalEntry
from microjobs_orchestrator.runs.kinds import ABSENT, ENDPOINT, KINDS, TUNING, Kind, Members
from microjobs_orchestrator.runs.logs import LogTail
from microjobs_orchestrator.runs.progress import Progress, StepDisplay, Trial

STOP_SECONDS = 150
"""How long a stop may take: a job has 120 s to save its work."""

DELETE_SECONDS = 1800
"""How long it may take to delete an endpoint: AWS does not before it is in service or has failed."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """The first Ctrl-C (SIGTERM, terminal's end) raises KeyboardInterrupt, after the answer to a request that makes
    something; later ones do not break the cleaning up after it."""
    seen = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if _whole.going and not seen:
            seen = _whole.interrupted = True
        elif _whole.going or not seen:  # who asks twice does not want to wait for an answer
            seen = True
            raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Whole:
    """A request that Ctrl-C waits for: a Create that was broken off may go on, and nothing would stop what it makes."""

    going = interrupted = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        self.going, self.interrupted = True, False
        try:
            yield
        finally:
            self.going = False
        if self.interrupted:
            raise KeyboardInterrupt


_whole = _Whole()


class Run:
    """What a workflow calls. Steps that an earlier attempt finished are not done again.

    Args:
        backend: where.
        journal: what was done so far.
        progress: shows it.
        keep: leave what runs as it is after Ctrl-C or a failure.
    """

    def __init__(self, backend: Backend, journal: Journal, progress: Progress, *, keep: bool = False) -> None:
        self.backend = backend
        self.keep = keep
        self.journal = journal
        self.progress = progress
        self._verify()
        if journal.endpoint is not None:  # the launcher was killed while it was up, or it was kept
            self._delete_endpoint(journal.endpoint)

    @property
    def id(self) -> str:
        return self.journal.id

    def _verify(self) -> None:
        """Keep the steps up to the first whose job is neither good nor going on: later ones built on it."""
        kinds = {kind.word: kind for kind in KINDS}
        for number, done in enumerate(self.journal.steps):
            if not done.kind:
                continue
            kind = kinds[done.kind]
            description = kind.describe(self.backend.sagemaker, done.name)
            if description is None or description[kind.status] not in (kind.good, *kind.going):
                self.journal.drop_from(number)
                return

    def name(self, step: str) -> str:
        """A step's name on SageMaker, for a job, model or endpoint: unique, and new in each attempt."""
        done = self.journal.step(step)
        if done is not None and done.kind:
            return done.name
        attempt = "" if self.journal.attempt == 1 else f"-{self.journal.attempt}"
        return f"{self.id}-{step}{attempt}"

    def job(self, step: str, title: str, kind: Kind, request: Members) -> Members:
        """Create a job and wait for its end.

        Args:
            step: the same word as in the request's `name(step)`.
            title: for people.
            kind: says which Create operation the request is for.
            request: as boto3 takes it.

        Returns:
            Its description, as Describe has it.

        Raises:
            JobFailedError: it did not end as Completed.
        """
        name = request[kind.name]
        done = self.journal.step(step)
        with self.progress.step(title) as shown:
            if done is None:
                done = JournalEntry(step, title, kind.word, name)
                self.journal.steps.append(done)
                self.journal.save()
                with self._stopped_if_interrupted(kind, name), _whole():
                    kind.create(self.backend.sagemaker, self._complete(f"Create{kind.word}", request))
            with self._stopped_if_interrupted(kind, name):
                description = self._follow(kind, name, shown)
            if done.seconds is None:  # an earlier attempt has counted the others
                self._count(kind, description)
            self._need_good(kind, name, description, shown)
            if done.seconds is None:
                done.seconds = shown.seconds
                self.journal.save()
        return description

    def once(self, step: str, title: str, compute: Callable[[], Any]) -> Any:
        """A value that JSON can hold, computed once and remembered."""
        done = self.journal.step(step)
        if done is None:
            started = time.monotonic()
            value = compute()
            done = JournalEntry(step, title, "", step, time.monotonic() - started, value)
            self.journal.steps.append(done)
            self.journal.save()
        return done.value

    @contextlib.contextmanager
    def endpoint(self, title: str, model: Members, config: Members, endpoint: Members) -> Iterator[str]:
        """Create a model, its configuration and an endpoint, all of one name, which is given to the block.

        All three are gone afterwards, whatever happens.

        Raises:
            JobFailedError: it did not come into service.
        """
        name = str(endpoint["EndpointName"])
        self.journal.endpoint = name
        self.journal.save()
        sagemaker, started = self.backend.sagemaker, time.monotonic()
        try:
            with self.progress.step(title) as shown:
                sagemaker.create_model(**self._complete("CreateModel", model))
                sagemaker.create_endpoint_config(**self._complete("CreateEndpointConfig", config))
                with _whole():
                    sagemaker.create_endpoint(**self._complete("CreateEndpoint", endpoint))
                description = self._follow(ENDPOINT, name, shown)
                self._need_good(ENDPOINT, name, description, shown)
            yield name
            self._delete_endpoint(name)
        except BaseException:
            self._abandon_endpoint(name)
            raise
        finally:
            self._count_endpoint(config, time.monotonic() - started)

    def _delete_endpoint(self, name: str) -> None:
        delete_endpoint(self.backend, name, self.progress.note)
        self.journal.endpoint = None
        self.journal.save()

    def _abandon_endpoint(self, name: str) -> None:
        """Delete it after a failure, which is told even if that fails too: then the journal keeps the name."""
        if self.keep:
            self.progress.note(f"endpoint {name} is kept, and costs until it is deleted: {self._stop_hint(name)}")
            return
        try:
            self._delete_endpoint(name)
        except (ClientError, BotoCoreError, LauncherError) as error:
            self.progress.note(f"endpoint {name} could not be deleted ({error}): {self._stop_hint(name)}")

    def _complete(self, operation: str, request: Members) -> Members:
        return self.backend.complete(self.id, operation, request)

    # --- what it costs ---

    def _count(self, kind: Kind, description: Members | None) -> None:
        """Add a job that has ended to what the run has cost."""
        if self.backend.price is None or description is None:
            return
        if (used := usage(self.backend.sagemaker, kind, description)) is not None:
            self.journal.add_cost(used.instance_type, used.dollars(self.backend.price))

    def _count_endpoint(self, config: Members, seconds: float) -> None:
        """Facts: an endpoint's time is not described; ours, from the request to the deletion, is a little longer."""
        if self.backend.price is not None:
            for variant in config["ProductionVariants"]:
                used = Usage(variant["InstanceType"], seconds * variant["InitialInstanceCount"])
                self.journal.add_cost(used.instance_type, used.dollars(self.backend.price))
        self.journal.save()

    def _cost_so_far(self, kind: Kind, description: Members) -> str:
        if self.backend.price is None:
            return ""
        used = usage(self.backend.sagemaker, kind, description)
        now = (used.dollars(self.backend.price) or 0.0) if used is not None else 0.0
        return f"{dollars(self.journal.spent + now)} so far"

    # --- to the end, or to a stop ---

    def _follow(self, kind: Kind, name: str, shown: StepDisplay) -> Members:
        """Show a job until it has ended; its last description."""
        tail = LogTail.of(self.backend.logs, kind, name)
        while True:
            description = kind.describe(self.backend.sagemaker, name)
            if description is None:
                raise JobFailedError(shown.title, name, "gone", "it was deleted", tuple(shown.tail))
            status = description[kind.status]
            secondary = description.get("SecondaryStatus", status)
            self.progress.status(shown, status if secondary == status else f"{status}: {secondary}")
            shown.cost = self._cost_so_far(kind, description)
            if kind is TUNING:
                self.progress.trials(shown, trials(self.backend, name))
            # The many streams of a tuning job are worth reading only for who sees them, and for what they end with.
            if ended := status not in kind.going:
                self.progress.log(shown, tail.rest())
            elif kind is not TUNING or self.progress.verbose:
                self.progress.log(shown, tail.read())
            if ended:
                return description
            if kind is ENDPOINT and shown.seconds > self.backend.max_seconds:
                raise JobFailedError(
                    shown.title, name, status, f"not in service within {self.backend.max_seconds} s", tuple(shown.tail)
                )
            # Ever more rarely on this machine: the job needs its processors more than we do.
            time.sleep(min(max(self.backend.poll, shown.seconds / 40), self.backend.poll_longest))

    def _need_good(self, kind: Kind, name: str, description: Members, shown: StepDisplay) -> None:
        status = description[kind.status]
        if status != kind.good:
            reason = description.get("FailureReason") or "no reason is given"
            raise JobFailedError(shown.title, name, status, reason, tuple(shown.tail))

    @contextlib.contextmanager
    def _stopped_if_interrupted(self, kind: Kind, name: str) -> Iterator[None]:
        """Stop the job when the block is left by Ctrl-C or by a failure of ours."""
        try:
            yield
        except BaseException:
            if self.keep:
                self.progress.note(f"{name} is left as it is: {self._stop_hint(name)}")
                raise
            self.progress.note(f"stopping {name}")
            try:
                self._stop(kind, name)
            except (ClientError, BotoCoreError) as error:
                self.progress.note(f"{name} could not be stopped ({error}): {self._stop_hint(name)}")
            raise

    def _stop_hint(self, name: str) -> str:
        return f"`microjobs stop {name}{'' if self.journal.on == 'here' else f' --on {self.journal.on}'}`"

    def _stop(self, kind: Kind, name: str) -> None:
        if not kind.stop(self.backend.sagemaker, name):
            return
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            description = kind.describe(self.backend.sagemaker, name)
            if description is None or description[kind.status] not in kind.going:
                self._count(kind, description)
                return
            time.sleep(self.backend.poll)
        self.progress.note(f"{name} has not stopped after {STOP_SECONDS} s: `microjobs ps` shows it")


def delete_endpoint(backend: Backend, name: str, note: Callable[[str], None]) -> None:
    """Delete what is there of an endpoint, its configuration and its model, and see it gone.

    Args:
        backend: where.
        name: of all three.
        note: takes a line for people.

    Raises:
        LauncherError: the endpoint is still there after half an hour.
    """
    sagemaker = backend.sagemaker
    deadline = time.monotonic() + DELETE_SECONDS
    status = ""
    while (description := ENDPOINT.describe(sagemaker, name)) is not None:
        if status != (status := description["EndpointStatus"]):
            note(f"deleting endpoint {name}, which is {status}")
        if time.monotonic() > deadline:
            raise LauncherError(f"endpoint {name} is {status} and could not be deleted: look at it in AWS's console")
        # AWS refuses while it is being created; then it is to be asked again.
        ENDPOINT.stop(sagemaker, name)
        if ENDPOINT.describe(sagemaker, name) is not None:
            time.sleep(backend.poll)
    deletions: tuple[Callable[[], object], ...] = (
        lambda: sagemaker.delete_endpoint_config(EndpointConfigName=name),
        lambda: sagemaker.delete_model(ModelName=name),
    )
    for delete in deletions:
        try:
            delete()
        except ClientError as error:
            if error.response["Error"]["Code"] not in ABSENT:
                raise


def trials(backend: Backend, name: str) -> list[Trial]:
    """The training jobs of a tuning job, in the order of their start."""
    answer = backend.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending", MaxResults=100
    )
    return [
        Trial(
            name=summary["TrainingJobName"],
            status=summary["TrainingJobStatus"],
            objective=_objective(summary),
            hyperparameters=dict(summary["TunedHyperParameters"]),
        )
        for summary in answer["TrainingJobSummaries"]
    ]


def _objective(summary: Members) -> float | None:
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    return None if metric is None else float(metric["Value"])
