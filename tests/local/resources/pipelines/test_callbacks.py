"""Callback steps, and the queues that receive their messages."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.local import queues
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.state import State
from tests.local.clients import LocalServer, unique, wait_until
from tests.local.jobs.fakes import FakeRuntime
from tests.local.resources.pipelines.in_process import Server
from tests.local.resources.pipelines.steps import (
    create_pipeline,
    describe,
    get,
    list_statuses,
    list_steps,
    make_step,
    start,
    wait_for_end,
)

AWS_URL = "https://sqs.us-east-1.amazonaws.com/123456789012/"


@pytest.fixture(scope="module")
def sqs(processes: LocalServer) -> Any:
    return processes.client("sqs")


def make_callback_step(queue: str, *outputs: tuple[str, str], **arguments: Any) -> dict[str, Any]:
    declared = [{"OutputName": name, "OutputType": kind} for name, kind in outputs]
    return make_step("Ask", "Callback", arguments, SqsQueueUrl=f"{AWS_URL}{queue}", OutputParameters=declared)


def receive(sqs: Any, queue: str, **members: Any) -> list[dict[str, Any]]:
    sqs.create_queue(QueueName=queue)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    messages: list[dict[str, Any]] = sqs.receive_message(QueueUrl=url, **members).get("Messages", [])
    return messages


def test_step_waits_for_an_answer_with_its_token(processes: LocalServer, sqs: Any) -> None:
    queue = unique("queue")
    ask = make_callback_step(queue, ("count", "Integer"), text=get("Execution.PipelineName"))
    condition = {"Type": "Equals", "LeftValue": get("Steps.Ask.OutputParameters['count']"), "RightValue": 3}
    check = make_step("Check", "Condition", {"Conditions": [condition], "IfSteps": [], "ElseSteps": []})
    pipeline = create_pipeline(processes, ask, check)
    arn = start(processes, pipeline)
    (message,) = receive(sqs, queue, WaitTimeSeconds=20)
    body = json.loads(message["Body"])
    assert body == {
        "token": body["token"],
        "pipelineExecutionArn": arn,
        "arguments": {"text": pipeline},
        "status": "Executing",
    }
    assert list_statuses(list_steps(processes, arn)) == {"Ask": "Executing"}
    outputs = [{"Name": "count", "Value": "3"}]
    client = processes.sagemaker
    answer = client.send_pipeline_execution_step_success(CallbackToken=body["token"], OutputParameters=outputs)
    assert answer["PipelineExecutionArn"] == arn
    assert wait_for_end(processes, arn)["PipelineExecutionStatus"] == "Succeeded"
    steps = list_steps(processes, arn)
    assert steps["Check"]["Metadata"]["Condition"]["Outcome"] == "True"
    assert steps["Ask"]["Metadata"]["Callback"] == {
        "CallbackToken": body["token"],
        "SqsQueueUrl": f"{AWS_URL}{queue}",
        "OutputParameters": outputs,
    }
    with pytest.raises(ClientError, match="No Callback step waits"):
        client.send_pipeline_execution_step_success(CallbackToken=body["token"])


def test_reported_failure_fails_the_step(processes: LocalServer, sqs: Any) -> None:
    queue = unique("queue")
    arn = start(processes, create_pipeline(processes, make_callback_step(queue)))
    (message,) = receive(sqs, queue, WaitTimeSeconds=20)
    token = json.loads(message["Body"])["token"]
    processes.sagemaker.send_pipeline_execution_step_failure(CallbackToken=token, FailureReason="not approved")
    assert wait_for_end(processes, arn)["FailureReason"].endswith("Ask: not approved")


def test_stop_is_reported_to_the_queue(processes: LocalServer, sqs: Any) -> None:
    queue = unique("queue")
    arn = start(processes, create_pipeline(processes, make_callback_step(queue)))
    (first,) = receive(sqs, queue, WaitTimeSeconds=20)
    processes.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert wait_for_end(processes, arn)["PipelineExecutionStatus"] == "Stopped"
    (second,) = receive(sqs, queue)
    bodies = [json.loads(message["Body"]) for message in (first, second)]
    assert [body["status"] for body in bodies] == ["Executing", "Stopping"]
    assert bodies[0]["token"] == bodies[1]["token"]
    with pytest.raises(ClientError, match="ResourceNotFound"):
        processes.sagemaker.send_pipeline_execution_step_success(CallbackToken=bodies[0]["token"])
    assert describe(processes, arn)["PipelineExecutionStatus"] == "Stopped"


def test_answer_reaches_the_server_after_a_crash(home: Home, runtime: FakeRuntime) -> None:
    step = make_callback_step("queue", ("x", "String"))
    first = Server(home, runtime)
    arn = first.start({"Version": "2020-12-01", "Steps": [step]})
    while first.list_steps(arn) != [("Ask", "Executing")]:
        time.sleep(0.01)
    second = Server(home, runtime)
    second.recover()
    request = {"PipelineExecutionArn": arn}
    (described,) = second.operations["ListPipelineExecutionSteps"](request)["PipelineExecutionSteps"]
    token = described["Metadata"]["Callback"]["CallbackToken"]
    outputs = [{"Name": "x", "Value": "y"}]
    second.operations["SendPipelineExecutionStepSuccess"]({"CallbackToken": token, "OutputParameters": outputs})
    assert second.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    second.parts.close()


# --- queues ---


def test_message_is_hidden_until_its_timeout_and_deleted(sqs: Any) -> None:
    queue = unique("queue")
    url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    sent = sqs.send_message(QueueUrl=url, MessageBody="é")
    (first,) = receive(sqs, queue, VisibilityTimeout=1)
    assert (first["MessageId"], first["Body"]) == (sent["MessageId"], "é")
    assert receive(sqs, queue) == []
    time.sleep(1.1)
    (second,) = receive(sqs, queue)
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])  # an old handle deletes nothing
    sqs.delete_message(QueueUrl=url, ReceiptHandle=second["ReceiptHandle"])
    sqs.send_message(QueueUrl=url, MessageBody="other")
    (third,) = receive(sqs, queue, VisibilityTimeout=0)
    assert third["Body"] == "other"
    sqs.purge_queue(QueueUrl=url)
    assert receive(sqs, queue) == []


def test_waiting_consumer_receives_a_message_that_becomes_visible(sqs: Any) -> None:
    url = sqs.create_queue(QueueName=unique("queue"))["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="text")
    sqs.receive_message(QueueUrl=url, VisibilityTimeout=1)
    start_time = time.monotonic()
    assert len(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10)["Messages"]) == 1
    assert time.monotonic() - start_time < 5


def test_consumer_does_not_wait_if_many_others_wait(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_waiters", threading.Semaphore(1))
    with closing(State(home.state)) as state, ThreadPoolExecutor() as pool:
        queues.create_queue(state, "q")
        first = pool.submit(queues.receive, state, "q", 1, 30.0, 20.0)
        wait_until(lambda: queues._waiters._value, lambda free: free == 0)
        assert queues.receive(state, "q", 1, 30.0, 20.0) == []
        assert not first.done()
        queues.send(state, "q", "text")
        assert [message.body for message in first.result(10)] == ["text"]
        assert queues._waiters._value == 1


def test_queues_are_listed_and_deleted(sqs: Any) -> None:
    prefix = unique("listed")
    urls = [sqs.create_queue(QueueName=f"{prefix}-{number}")["QueueUrl"] for number in range(3)]
    assert sqs.list_queues(QueueNamePrefix=f"{prefix}-")["QueueUrls"] == urls
    sqs.delete_queue(QueueUrl=urls[0])
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName=f"{prefix}-0")
    with pytest.raises(ClientError, match="MaxNumberOfMessages 11 must be from 1 to 10"):
        sqs.receive_message(QueueUrl=urls[1], MaxNumberOfMessages=11)
    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        sqs.delete_message(QueueUrl=urls[1], ReceiptHandle="x")


@pytest.mark.parametrize("name", ["", "../x", "a b", "a" * 81, "a.b"])
def test_queue_name_that_a_url_cannot_contain_is_refused(sqs: Any, name: str) -> None:
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*1 to 80 letters"):
        sqs.create_queue(QueueName=name)
