"""Receives the events of jobs from an SQS queue, as on AWS, where the queue is the target of a rule of EventBridge.

Usage: events_boto3.py QUEUE IMAGE BUCKET
"""

import json
import os
import sys
from typing import Any

import boto3

queue, image, bucket = sys.argv[1:]
sqs, sagemaker = boto3.client("sqs"), boto3.client("sagemaker")
url = sqs.create_queue(QueueName=queue)["QueueUrl"]


def start_training(name: str, script: str) -> str:
    """Start a training job; return its ARN."""
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh", "-c", script],
        },
        "RoleArn": os.environ["SAGEMAKER_ROLE"],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/events"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 100},
        "Tags": [{"Key": "team", "Value": "blue"}],
    }
    return str(sagemaker.create_training_job(**request)["TrainingJobArn"])


arns = [start_training("succeeds", "exit 0"), start_training("fails", "exit 3")]
events: dict[str, list[dict[str, Any]]] = {arn: [] for arn in arns}
running_arns = set(arns)
while running_arns:
    response = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)
    for message in response.get("Messages", []):
        event = json.loads(message["Body"])
        (arn,) = event["resources"]
        events[arn].append(event)
        if event["detail"]["TrainingJobStatus"] != "InProgress":
            running_arns.discard(arn)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
is_empty = "Messages" not in sqs.receive_message(QueueUrl=url)
sqs.delete_queue(QueueUrl=url)


def compare_events(arn: str) -> dict[str, Any]:
    """Compare the events of a job with its description; return the results of the comparison."""
    job_events, last_event = events[arn], events[arn][-1]
    job = sagemaker.describe_training_job(TrainingJobName=last_event["detail"]["TrainingJobName"])
    history = [change["Status"] for change in job["SecondaryStatusTransitions"]]
    return {
        "type": last_event["detail-type"],
        "members": sorted(last_event),
        "source": last_event["source"],
        "status": last_event["detail"]["TrainingJobStatus"],
        "tags": last_event["detail"]["Tags"],
        "isUnique": len({event["id"] for event in job_events}) == len(job_events),
        "reasonMatches": last_event["detail"].get("FailureReason") == job.get("FailureReason"),
        "historyMatches": [event["detail"]["SecondaryStatus"] for event in job_events] == history,
        "timeMatches": last_event["detail"]["CreationTime"] == round(job["CreationTime"].timestamp() * 1000),
    }


print(json.dumps(events))
queues = sqs.list_queues(QueueNamePrefix=queue).get("QueueUrls", [])
print(json.dumps({"jobs": list(map(compare_events, arns)), "isEmpty": is_empty, "queues": queues}))
