"""SecondaryStatus of training jobs, and its history."""

from collections.abc import Mapping, Sequence
from typing import Any

MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Interrupted": "Training job interrupted: the instances are taken away",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds",
    "MaxWaitTimeExceeded": "Training job exceeded MaxWaitTimeInSeconds",
}
"""SageMaker's StatusMessage for each SecondaryStatus."""

ENDED_SECONDARY_STATUSES = ("Completed", "Failed", "Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded")


def enter_status(transitions: Sequence[Mapping[str, Any]], status: str, now: float) -> dict[str, Any]:
    """Return the members that describe a new SecondaryStatus and its history."""
    past_transitions = [{**item, "EndTime": item.get("EndTime", max(now, item["StartTime"]))} for item in transitions]
    current_transition: dict[str, Any] = {"Status": status, "StartTime": now, "StatusMessage": MESSAGES[status]}
    if status in ENDED_SECONDARY_STATUSES:
        current_transition["EndTime"] = now
    return {"SecondaryStatus": status, "SecondaryStatusTransitions": [*past_transitions, current_transition]}
