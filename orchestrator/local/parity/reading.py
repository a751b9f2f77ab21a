"""Requests that describe, list, stop, delete and tag."""

from collections.abc import Iterable

from microjobs_orchestrator.local.parity.common import TAGS
from microjobs_orchestrator.local.parity.rows import Honoured, Refused, Row, Rows

KINDS = (
    "ProcessingJob",
    "TrainingJob",
    "HyperParameterTuningJob",
    "TransformJob",
    "Model",
    "EndpointConfig",
    "Endpoint",
)
JOBS = KINDS[:4]
DELETED = ("ProcessingJob", "TrainingJob", "HyperParameterTuningJob", "Model", "EndpointConfig", "Endpoint")
"""AWS deletes all but transform jobs."""

PAGE = ("SortBy", "SortOrder", "NextToken", "MaxResults")
CREATED = ("NameContains", "CreationTimeBefore", "CreationTimeAfter")
MODIFIED = ("LastModifiedTimeBefore", "LastModifiedTimeAfter", "StatusEquals")


def _honoured(names: Iterable[str]) -> dict[str, Row]:
    return {name: Honoured() for name in names}


READING: dict[str, Rows] = {
    **{f"Describe{kind}": _honoured([f"{kind}Name"]) for kind in KINDS},
    **{f"Stop{kind}": _honoured([f"{kind}Name"]) for kind in JOBS},
    **{f"Delete{kind}": _honoured([f"{kind}Name"]) for kind in DELETED},
    **{f"List{kind}s": _honoured([*PAGE, *CREATED, *MODIFIED]) for kind in (*JOBS, "Endpoint")},
    **{f"List{kind}s": _honoured([*PAGE, *CREATED]) for kind in ("Model", "EndpointConfig")},
    "ListTrainingJobs": {
        **_honoured([*PAGE, *CREATED, *MODIFIED]),
        "WarmPoolStatusEquals": Refused("there are no warm pools"),
        "TrainingPlanArnEquals": Refused("there are no training plans"),
    },
    "ListTrainingJobsForHyperParameterTuningJob": _honoured([*PAGE, "HyperParameterTuningJobName", "StatusEquals"]),
    "AddTags": {"ResourceArn": Honoured(), "Tags": TAGS},
    "ListTags": _honoured(["ResourceArn", "NextToken", "MaxResults"]),
    "DeleteTags": _honoured(["ResourceArn", "TagKeys"]),
}
