"""Updates in steps: canary, linear and rolling updates, their failures, and a restart of the server."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError, ValidationError
from microjobs_orchestrator.local.resources.endpoints import container_replica, deployer, deployments
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.update_policies import read_policy
from microjobs_orchestrator.local.runtimes.base import Exit, HostPlan, Plan
from microjobs_orchestrator.local.services.alarms import AlarmOperations
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import FakeHost, ImageBehaviour, ReceivedRequest, Reply
from tests.local.jobs.test_endpoints_invocations import Invoker
from tests.polling import wait_until

INSTANCE_COUNT = 4
BAKING_SECONDS = 600
"""The seconds of each baking period. Only the test moves the clock of the updates."""


def make_percent_size(value: int) -> Mapping[str, Any]:
    """Return a size in percent of the capacity."""
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def make_instance_size(value: int) -> Mapping[str, Any]:
    """Return a size in instances."""
    return {"Type": "INSTANCE_COUNT", "Value": value}


def make_blue_green_config(
    routing_type: str, wait_seconds: int = BAKING_SECONDS, policy: Mapping[str, Any] | None = None, **routing: Any
) -> dict[str, Any]:
    """Return the DeploymentConfig of a blue/green update. `routing` changes TrafficRoutingConfiguration."""
    routing = {"Type": routing_type, "WaitIntervalInSeconds": wait_seconds, **routing}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **(policy or {})}}


def make_rolling_config(size: Mapping[str, Any], wait_seconds: int = BAKING_SECONDS, **policy: Any) -> dict[str, Any]:
    """Return the DeploymentConfig of a rolling update."""
    return {"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": wait_seconds, **policy}}


class Update:
    """An update of endpoint `e` from configuration `c` (image `model`) to configuration `d` (image `new`)."""

    def __init__(self, parts: ServerParts, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts = parts
        self._now = 0.0
        monkeypatch.setattr(deployer, "time", SimpleNamespace(monotonic=lambda: self._now))
        monkeypatch.setattr(container_replica, "FIRST_RESTART_DELAY_SECONDS", 60.0)
        self.new_model = parts.runtime.behaviours["new"] = ImageBehaviour(invoke=lambda _: Reply(b"new"))
        parts.make_model("n", "new")
        parts.make_config("d", main={"ModelName": "n", "InitialInstanceCount": INSTANCE_COUNT})
        parts.deploy(main={"InitialInstanceCount": INSTANCE_COUNT})
        parts.runtime.behaviours["model"].invoke = lambda _: Reply(b"old")

    def start(self, config: Mapping[str, Any], **members: Any) -> None:
        self.parts.update_endpoint("d", **({"DeploymentConfig": config} if config else {}), **members)

    def advance(self, seconds: float = BAKING_SECONDS) -> None:
        """Move the clock of the update."""
        self._now += seconds
        self.find_endpoint().wake()

    def complete(self) -> dict[str, Any]:
        """Move the clock until the update is complete; return the description of the endpoint."""

        def poll() -> dict[str, Any]:
            self.advance()
            return self.parts.describe_endpoint()

        description: dict[str, Any] = wait_until(poll, lambda description: description["EndpointStatus"] == "InService")
        return description

    def find_endpoint(self) -> Endpoint:
        endpoint = self.parts.registry.find("endpoint/e")
        assert isinstance(endpoint, Endpoint)
        return endpoint

    def wait_for_weight(self, weight: float) -> dict[str, Any]:
        """Wait until the new deployment has this weight; return the description of the endpoint."""

        def read_weight(description: Mapping[str, Any]) -> float:
            summary = description.get("PendingDeploymentSummary") or {"ProductionVariants": [{"CurrentWeight": -1.0}]}
            return float(summary["ProductionVariants"][0]["CurrentWeight"])

        description: dict[str, Any] = wait_until(
            self.parts.describe_endpoint, lambda description: read_weight(description) == pytest.approx(weight)
        )
        return description

    def list_hosts(self, image: str) -> list[FakeHost]:
        return [host for host in self.parts.running_hosts if host.plan.image == image]

    def count_hosts(self) -> tuple[int, int]:
        """Return the numbers of old and of new containers."""
        return len(self.list_hosts("model")), len(self.list_hosts("new"))

    def wait_for_hosts(self, old_count: int, new_count: int) -> None:
        wait_until(self.count_hosts, lambda counts: counts == (old_count, new_count))

    def measure_share(self) -> float:
        """Return the share of the requests for which the endpoint chooses a new container."""
        names = {host.name for host in self.list_hosts("new")}
        instance_ids = [replica.instance_id for _ in range(2000) if (replica := self.find_endpoint().choose_replica())]
        return sum(instance in names for instance in instance_ids) / len(instance_ids)


@pytest.fixture
def update(parts: ServerParts, model: ImageBehaviour, monkeypatch: pytest.MonkeyPatch) -> Iterator[Update]:  # noqa: ARG001
    new_update = Update(parts, monkeypatch)
    yield new_update
    monkeypatch.undo()  # the end of the endpoint needs the real clock


def test_canary_update_moves_a_part_of_the_requests_first(update: Update) -> None:
    update.start(
        make_blue_green_config("CANARY", CanarySize=make_percent_size(25), policy={"TerminationWaitInSeconds": 60})
    )
    description = update.wait_for_weight(0.25)
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("Updating", "c")
    assert description["ProductionVariants"][0]["CurrentWeight"] == 0.75
    summary = description["PendingDeploymentSummary"]
    assert summary["EndpointConfigName"] == "d"
    assert summary["ProductionVariants"][0]["CurrentInstanceCount"] == INSTANCE_COUNT
    assert summary["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "Baking"
    assert 0.2 < update.measure_share() < 0.3
    update.advance()
    update.wait_for_weight(1.0)
    assert {Invoker(update.parts)().data for _ in range(20)} == {b"new"}
    update.advance()  # the last baking period ends, and TerminationWaitInSeconds begins
    assert update.count_hosts() == (INSTANCE_COUNT, INSTANCE_COUNT)
    description = update.complete()
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", "d")
    assert not description.get("PendingDeploymentSummary")
    assert description["ProductionVariants"][0]["CurrentWeight"] == 1.0
    update.wait_for_hosts(0, INSTANCE_COUNT)


def test_rolling_update_replaces_containers_in_batches(update: Update) -> None:
    update.start(make_rolling_config(make_instance_size(1)))
    for step in range(1, INSTANCE_COUNT + 1):
        update.wait_for_weight(step / INSTANCE_COUNT)
        update.wait_for_hosts(INSTANCE_COUNT - step + 1, step)
        update.advance()
    assert update.parts.wait_for_endpoint()["EndpointConfigName"] == "d"
    update.wait_for_hosts(0, INSTANCE_COUNT)


def test_container_that_ends_while_baking_rolls_the_update_back(update: Update) -> None:
    old_hosts = update.list_hosts("model")
    update.start(make_blue_green_config("LINEAR", LinearStepSize=make_percent_size(50)))
    update.wait_for_weight(0.5)
    lock, stop = threading.Lock(), threading.Event()
    failures: list[ServiceError] = []

    def invoke() -> None:
        while not stop.is_set():
            try:
                with lock:
                    Invoker(update.parts)()
            except ServiceError as error:
                failures.append(error)

    client = threading.Thread(target=invoke)
    client.start()
    with lock:  # no request is in progress now: a request in a container that ends is lost, as on AWS
        update.list_hosts("new")[0].end(Exit(1))
    description = update.parts.wait_for_endpoint()
    stop.set()
    client.join()
    assert failures == []
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", "c")
    assert (
        "A new container ended or did not respond during the update. Its log: main/i-" in description["FailureReason"]
    )
    assert (description["ProductionVariants"][0]["CurrentWeight"], description.get("PendingDeploymentSummary")) == (
        1.0,
        None,
    )
    update.wait_for_hosts(INSTANCE_COUNT, 0)
    assert update.list_hosts("model") == old_hosts


ALARM = {
    "AlarmName": "errors",
    "Namespace": "AWS/SageMaker",
    "MetricName": "Invocation5XXErrors",
    "Dimensions": [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "main"}],
    "Statistic": "Sum",
    "Period": 1,
    "EvaluationPeriods": 1,
    "Threshold": 2,
    "ComparisonOperator": "GreaterThanThreshold",
    "TreatMissingData": "notBreaching",
}
ROLLBACK = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]}}


def put_alarm(parts: ServerParts) -> AlarmOperations:
    alarms = AlarmOperations(parts.context.state, parts.context.alarms, "us-east-1")
    alarms.put(ALARM)
    return alarms


def test_errors_that_raise_an_alarm_roll_the_update_back(update: Update) -> None:
    put_alarm(update.parts)
    update.new_model.invoke = lambda _: Reply(b"broken", status=500)
    update.start({**make_blue_green_config("CANARY", CanarySize=make_percent_size(50)), **ROLLBACK})
    update.wait_for_weight(0.5)
    invoker, errors = Invoker(update.parts), 0
    while errors < 20:
        try:
            invoker()
        except ServiceError:
            errors += 1
    description = update.parts.wait_for_endpoint()
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", "c")
    assert "Alarm errors is in the state ALARM: 1 of the last" in description["FailureReason"]
    update.wait_for_hosts(INSTANCE_COUNT, 0)


def test_alarm_after_the_last_step_rolls_a_rolling_update_back(update: Update) -> None:
    alarms = put_alarm(update.parts)
    update.start({**make_rolling_config(make_percent_size(50)), **ROLLBACK})
    update.wait_for_weight(0.5)
    update.advance()
    update.wait_for_weight(1.0)
    alarms.set_state({"AlarmName": "errors", "StateValue": "ALARM", "StateReason": "a test"})
    update.find_endpoint().wake()
    description = update.parts.wait_for_endpoint()
    assert description["EndpointConfigName"] == "c"
    assert "Alarm errors is in the state ALARM: a test" in description["FailureReason"]
    update.wait_for_hosts(INSTANCE_COUNT, 0)


def test_update_completes_while_its_alarm_is_ok(update: Update) -> None:
    put_alarm(update.parts)
    update.start({**make_blue_green_config("ALL_AT_ONCE"), **ROLLBACK})
    update.wait_for_hosts(INSTANCE_COUNT, INSTANCE_COUNT)
    assert update.complete()["EndpointConfigName"] == "d"


def test_failed_batch_of_a_rolling_update_restores_the_old_containers(update: Update) -> None:
    update.start(make_rolling_config(make_percent_size(25), RollbackMaximumBatchSize=make_instance_size(1)))
    update.wait_for_weight(0.25)
    update.advance()
    update.wait_for_weight(0.5)
    update.new_model.exit_at_start = Exit(1)
    update.parts.runtime.behaviours["model"].ping = 503  # the rollback waits until the old containers are healthy
    update.advance()
    description = wait_until(
        update.parts.describe_endpoint, lambda description: description["EndpointStatus"] == "RollingBack"
    )
    assert description["ProductionVariants"][0]["CurrentInstanceCount"] == INSTANCE_COUNT - 2
    assert {Invoker(update.parts)().data for _ in range(10)} == {b"old"}
    assert len(update.list_hosts("model")) == INSTANCE_COUNT - 1  # a batch of the rollback has one container
    update.parts.runtime.behaviours["model"].ping = 200
    description = wait_until(
        update.parts.describe_endpoint, lambda description: description["EndpointStatus"] == "InService"
    )
    assert (description["EndpointConfigName"], description["ProductionVariants"][0]["CurrentInstanceCount"]) == (
        "c",
        INSTANCE_COUNT,
    )
    assert "did not pass the ping health check" in description["FailureReason"]
    update.wait_for_hosts(INSTANCE_COUNT, 0)


def test_update_that_takes_too_long_fails(update: Update) -> None:
    update.new_model.ping = 503
    limit = {"MaximumExecutionTimeoutInSeconds": 700}
    update.start(make_blue_green_config("ALL_AT_ONCE", policy=limit))
    update.wait_for_hosts(INSTANCE_COUNT, INSTANCE_COUNT)
    update.advance(701)
    description = update.parts.wait_for_endpoint()
    assert description["EndpointConfigName"] == "c"
    assert description["FailureReason"] == "The update took longer than MaximumExecutionTimeoutInSeconds."
    update.wait_for_hosts(INSTANCE_COUNT, 0)


def test_update_fails_if_its_time_ends_while_an_old_container_ends(update: Update) -> None:
    may_respond = threading.Event()

    def respond_late(_: ReceivedRequest) -> Reply:
        may_respond.wait(60)
        return Reply(b"old")

    model = update.parts.runtime.behaviours["model"]
    model.invoke = respond_late
    with ThreadPoolExecutor(INSTANCE_COUNT) as pool:
        for _ in range(INSTANCE_COUNT):
            pool.submit(Invoker(update.parts))
        wait_until(lambda: len(model.requests) == INSTANCE_COUNT)
        update.start(make_rolling_config(make_percent_size(50), wait_seconds=10, MaximumExecutionTimeoutInSeconds=30))
        update.wait_for_hosts(INSTANCE_COUNT, INSTANCE_COUNT // 2)
        update.wait_for_weight(0.5)
        update.new_model.ping = 503
        update.advance(10)
        wait_until(
            lambda: update.parts.describe_endpoint()["ProductionVariants"][0]["CurrentInstanceCount"] < INSTANCE_COUNT
        )
        update.advance(21)  # requests of the containers that end are still in progress
        may_respond.set()
    description = wait_until(
        update.parts.describe_endpoint, lambda description: description["EndpointStatus"] == "InService"
    )
    assert description["FailureReason"] == "The update took longer than MaximumExecutionTimeoutInSeconds."
    update.wait_for_hosts(INSTANCE_COUNT, 0)


def test_restarted_server_begins_an_interrupted_update_again(update: Update, monkeypatch: pytest.MonkeyPatch) -> None:
    # The thread of the earlier server still runs. Without the internal state, it does not begin the update itself.
    monkeypatch.setattr(update.find_endpoint()._deployer, "_read_internal", dict)
    parts, config = update.parts, make_blue_green_config("CANARY", CanarySize=make_percent_size(50))
    deployment = deployments.make_deployment(parts.context, "d")
    internal = {deployer.NEXT_DEPLOYMENT: deployment, deployer.UPDATE_CONFIG: config}
    parts.context.state.update("endpoint", "e", {"EndpointStatus": "Updating"}, "Updating", internal=internal)
    host, instance_id = parts.running_hosts[0], deployment["Variants"][0]["InstanceId"]
    leftover = HostPlan(instance_id, "new", host.plan.files, host.plan.inputs)
    parts.runtime.start(Plan(f"endpoint/e/main/{instance_id}", (leftover,)))
    old_hosts = update.list_hosts("model")
    update.parts = parts.restart()
    update.wait_for_weight(0.5)
    assert update.count_hosts() == (INSTANCE_COUNT, INSTANCE_COUNT)
    assert update.list_hosts("model") == old_hosts
    assert update.complete()["EndpointConfigName"] == "d"
    update.wait_for_hosts(0, INSTANCE_COUNT)
    update.parts.close()


def test_deletion_ends_an_update(update: Update) -> None:
    update.start(make_rolling_config(make_percent_size(50)))
    update.wait_for_weight(0.5)
    update.parts.delete_endpoint()
    wait_until(lambda: update.parts.context.state.get("endpoint", "e") is None)
    assert update.parts.runtime.hosts == {}


def test_policy_is_described_and_retained(update: Update) -> None:
    config = make_blue_green_config("ALL_AT_ONCE", wait_seconds=0)
    update.start(config)
    assert update.parts.wait_for_endpoint()["LastDeploymentConfig"] == config
    update.start({}, RetainDeploymentConfig=True)
    assert update.parts.wait_for_endpoint()["LastDeploymentConfig"] == config
    update.start({})
    assert not update.parts.wait_for_endpoint().get("LastDeploymentConfig")


@pytest.mark.parametrize(
    ("config", "count", "expected"),
    [
        (make_blue_green_config("ALL_AT_ONCE"), 1, [1]),
        (make_blue_green_config("CANARY", CanarySize=make_instance_size(1)), 4, [Fraction(1, 4), 1]),
        (
            make_blue_green_config("LINEAR", LinearStepSize=make_percent_size(30)),
            1,
            [Fraction(3, 10), Fraction(6, 10), Fraction(9, 10), 1],
        ),
        # 50 % are 1.5 instances, so a batch has one instance
        (make_rolling_config(make_percent_size(50)), 3, [Fraction(1, 3), Fraction(2, 3), 1]),
        (make_rolling_config(make_percent_size(5)), 3, [Fraction(1, 3), Fraction(2, 3), 1]),
    ],
)
def test_sizes_become_steps(config: Mapping[str, Any], count: int, expected: list[Fraction]) -> None:
    policy = read_policy(config, count, speed=60)
    assert (list(policy.shares), policy.baking_seconds) == (expected, BAKING_SECONDS / 60)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (make_blue_green_config("CANARY"), "of type CANARY needs CanarySize"),
        (
            make_blue_green_config("CANARY", CanarySize=make_instance_size(3)),
            "CanarySize 3 is 75% of the capacity of 4: use 0% to 50%",
        ),
        (
            make_blue_green_config("LINEAR", LinearStepSize=make_percent_size(5)),
            "LinearStepSize 5 is 5% of the capacity of 4: use 10% to 50%",
        ),
        (make_rolling_config(make_percent_size(60)), "MaximumBatchSize 60 is 60% of the capacity"),
        (
            {**make_rolling_config(make_percent_size(50)), **make_blue_green_config("ALL_AT_ONCE")},
            "both BlueGreenUpdatePolicy and RollingUpdatePolicy",
        ),
        (
            make_rolling_config(make_percent_size(50), MaximumExecutionTimeoutInSeconds=1200),
            "1200 must be larger than .* 1200 s",
        ),
        (ROLLBACK, "names alarms that do not exist: errors. Create them with PutMetricAlarm"),
    ],
)
def test_invalid_policy_is_refused(update: Update, config: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        update.start(config)
    assert update.parts.describe_endpoint()["EndpointStatus"] == "InService"
