"""Callback steps, and the queues that receive their messages."""

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from microjobs_orchestrator.local.home import Home
from tests.local.clients import LocalServer, make_unique_name
from tests.local.jobs.fakes import FakeRuntime
from tests.local.resources.pipelines.in_process import Server
from tests.local.resources.pipelines.steps import (
    create_pipeline,
    describe_execution,
    list_statuses,
    list_steps,
    make_get,
    make_step,
    start_execution,
    wait_for_end,
)

AWS_URL = "https://sqs.us-east-1.amazonaws.com/123456789012/"


@pytest.fixture(scope="module")
def sqs(process_server: LocalServer) -> Any:
    return process_server.client("sqs")


def make_callback_step(queue: str, *outputs: tuple[str, str], **arguments: Any) -> dict[str, Any]:
    output_parameters = [{"OutputName": name, "OutputType": output_type} for name, output_type in outputs]
    return make_step("Ask", "Callback", arguments, SqsQueueUrl=f"{AWS_URL}{queue}", OutputParameters=output_parameters)


def receive(sqs: Any, queue: str, **members: Any) -> list[dict[str, Any]]:
    """Receive messages of a queue, which is created if it does not exist."""
    sqs.create_queue(QueueName=queue)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    messages: list[dict[str, Any]] = sqs.receive_message(QueueUrl=url, **members).get("Messages", [])
    return messages


def test_step_waits_for_an_answer_with_its_token(process_server: LocalServer, sqs: Any) -> None:
    queue = make_unique_name("queue")
    ask = make_callback_step(queue, ("count", "Integer"), text=make_get("Execution.PipelineName"))
    condition = {"Type": "Equals", "LeftValue": make_get("Steps.Ask.OutputParameters['count']"), "RightValue": 3}
    check = make_step("Check", "Condition", {"Conditions": [condition], "IfSteps": [], "ElseSteps": []})
    pipeline = create_pipeline(process_server, ask, check)
    arn = start_execution(process_server, pipeline)
    (message,) = receive(sqs, queue, WaitTimeSeconds=20)
    body = json.loads(message["Body"])
    assert body == {
        "token": body["token"],
        "pipelineExecutionArn": arn,
        "arguments": {"text": pipeline},
        "status": "Executing",
    }
    assert list_statuses(list_steps(process_server, arn)) == {"Ask": "Executing"}
    outputs = [{"Name": "count", "Value": "3"}]
    client = process_server.sagemaker
    response = client.send_pipeline_execution_step_success(CallbackToken=body["token"], OutputParameters=outputs)
    assert response["PipelineExecutionArn"] == arn
    assert wait_for_end(process_server, arn)["PipelineExecutionStatus"] == "Succeeded"
    steps = list_steps(process_server, arn)
    assert steps["Check"]["Metadata"]["Condition"]["Outcome"] == "True"
    assert steps["Ask"]["Metadata"]["Callback"] == {
        "CallbackToken": body["token"],
        "SqsQueueUrl": f"{AWS_URL}{queue}",
        "OutputParameters": outputs,
    }
    with pytest.raises(ClientError, match="No Callback step waits"):
        client.send_pipeline_execution_step_success(CallbackToken=body["token"])


def test_reported_failure_fails_the_step(process_server: LocalServer, sqs: Any) -> None:
    queue = make_unique_name("queue")
    arn = start_execution(process_server, create_pipeline(process_server, make_callback_step(queue)))
    (message,) = receive(sqs, queue, WaitTimeSeconds=20)
    token = json.loads(message["Body"])["token"]
    process_server.sagemaker.send_pipeline_execution_step_failure(CallbackToken=token, FailureReason="not approved")
    assert wait_for_end(process_server, arn)["FailureReason"].endswith("Ask: not approved")


def test_stop_is_reported_to_the_queue(process_server: LocalServer, sqs: Any) -> None:
    queue = make_unique_name("queue")
    arn = start_execution(process_server, create_pipeline(process_server, make_callback_step(queue)))
    (first,) = receive(sqs, queue, WaitTimeSeconds=20)
    process_server.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert wait_for_end(process_server, arn)["PipelineExecutionStatus"] == "Stopped"
    (second,) = receive(sqs, queue)
    bodies = [json.loads(message["Body"]) for message in (first, second)]
    assert [body["status"] for body in bodies] == ["Executing", "Stopping"]
    assert bodies[0]["token"] == bodies[1]["token"]
    with pytest.raises(ClientError, match="ResourceNotFound"):
        process_server.sagemaker.send_pipeline_execution_step_success(CallbackToken=bodies[0]["token"])
    assert describe_execution(process_server, arn)["PipelineExecutionStatus"] == "Stopped"


def test_answer_reaches_the_server_after_a_crash(home: Home, runtime: FakeRuntime) -> None:
    step = make_callback_step("queue", ("x", "String"))
    first = Server(home, runtime)
    arn = first.start({"Version": "2020-12-01", "Steps": [step]})
    while first.list_steps(arn) != [("Ask", "Executing")]:
        time.sleep(0.01)
    second = Server(home, runtime)
    second.recover()
    request = {"PipelineExecutionArn": arn}
    (step_description,) = second.operations["ListPipelineExecutionSteps"](request)["PipelineExecutionSteps"]
    token = step_description["Metadata"]["Callback"]["CallbackToken"]
    outputs = [{"Name": "x", "Value": "y"}]
    second.operations["SendPipelineExecutionStepSuccess"]({"CallbackToken": token, "OutputParameters": outputs})
    assert second.wait_for_end(arn)["PipelineExecutionStatus"] == "Succeeded"
    second.parts.close()


# --- queues ---


def test_message_is_hidden_until_its_timeout_and_deleted(sqs: Any) -> None:
    queue = make_unique_name("queue")
    url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    response = sqs.send_message(QueueUrl=url, MessageBody="é")
    (first,) = receive(sqs, queue, VisibilityTimeout=1)
    assert (first["MessageId"], first["Body"]) == (response["MessageId"], "é")
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


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "InvalidMessageContents"),
        ("a\0", "InvalidMessageContents"),
        ("é" * (1 << 19) + "x", "InvalidParameterValue"),
    ],
)
def test_message_that_aws_refuses_is_refused(sqs: Any, body: str, code: str) -> None:
    url = sqs.create_queue(QueueName="refuses")["QueueUrl"]
    with pytest.raises(ClientError) as caught:
        sqs.send_message(QueueUrl=url, MessageBody=body)
    assert caught.value.response["Error"]["Code"] == code
    sqs.send_message(QueueUrl=url, MessageBody="é" * (1 << 19))
    assert len(receive(sqs, "refuses", VisibilityTimeout=100)) == 1


def test_waiting_consumer_receives_a_message_that_becomes_visible(sqs: Any) -> None:
    url = sqs.create_queue(QueueName=make_unique_name("queue"))["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="text")
    sqs.receive_message(QueueUrl=url, VisibilityTimeout=1)
    start_time = time.monotonic()
    assert len(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10)["Messages"]) == 1
    assert time.monotonic() - start_time < 5


def test_queues_are_listed_and_deleted(sqs: Any) -> None:
    prefix = make_unique_name("listed")
    urls = [sqs.create_queue(QueueName=f"{prefix}-{number}")["QueueUrl"] for number in range(3)]
    assert sqs.list_queues(QueueNamePrefix=f"{prefix}-")["QueueUrls"] == urls
    sqs.delete_queue(QueueUrl=urls[0])
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName=f"{prefix}-0")
    with pytest.raises(ClientError, match="MaxNumberOfMessages 11 must be from 1 to 10"):
        sqs.receive_message(QueueUrl=urls[1], MaxNumberOfMessages=11)
    sqs.send_message(QueueUrl=urls[1], MessageBody="text")
    (message,) = receive(sqs, f"{prefix}-1")
    for url, handle in ((urls[1], "x"), (urls[2], message["ReceiptHandle"])):
        with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)


@pytest.mark.parametrize("name", ["", "../x", "a b", "a" * 81, "a.b"])
def test_invalid_queue_name_is_refused(sqs: Any, name: str) -> None:
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*1 to 80 letters"):
        sqs.create_queue(QueueName=name)
