"""Rows that several requests share."""

from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Row, Rows

ROLE = NoEffect("permissions are not checked")
KMS = NoEffect("nothing is encrypted")
VOLUME = NoEffect("hosts use this machine's disk")
VPC = NoEffect("there is no VPC; each job has its own network")
EXPERIMENT = Members(
    {
        "ExperimentName": Honoured("an existing experiment"),
        "TrialName": Honoured("an existing experiment trial; by default, the job gets an experiment trial of its own"),
        "TrialComponentDisplayName": Honoured(),
        "RunName": NoEffect("only the class `Run` of the SDK v2, in the job, reads it to find its trial component"),
    }
)

TAGS = Members({"Key": Honoured(), "Value": Honoured()})

INSTANCE_TYPE = Honoured(
    "hosts of a GPU type get this machine's GPUs; with `--limits`, each host is limited to the cores and memory of its "
    "type",
    required=True,
)
ONE_MACHINE_REASON = "all hosts run on this one machine"
INSTANCE_COUNT = Honoured(
    "number of containers, `algo-1` …, on their own network",
    required=True,
    minimum=1,
    maximum=100,
    reason=ONE_MACHINE_REASON,
)
CLUSTER: Rows = {
    "InstanceType": INSTANCE_TYPE,
    "InstanceCount": INSTANCE_COUNT,
    "VolumeSizeInGB": VOLUME,
    "VolumeKmsKeyId": KMS,
}
"""Rows for the hosts of a job."""
ONE_TYPE = Refused("hosts have one instance type: use InstanceType and InstanceCount")
PREFERENCES: Rows = dict.fromkeys(("InstancePreferences", "SelectedInstanceType", "SelectedInstanceCount"), ONE_TYPE)

NETWORK_ISOLATION = Honoured("the hosts can reach only each other; the runtime `process` refuses it")
ENVIRONMENT = Honoured("variables of each host")
NETWORK: Rows = {
    "VpcConfig": VPC,
    "EnableNetworkIsolation": NETWORK_ISOLATION,
    "EnableInterContainerTrafficEncryption": NoEffect("traffic between hosts does not leave this machine"),
}
COMMAND: Rows = dict.fromkeys(("ContainerEntrypoint", "ContainerArguments"), Honoured("replaces the image's own"))

HUB = Refused("hubs are not supported: put the files into a bucket")
MODEL_ACCESS = Refused("models with a licence to accept are not supported: put the files into a bucket")

S3_PREFIX = Honoured("objects with this key prefix", values=("S3Prefix",), reason="put the objects under one prefix")
DISTRIBUTION = Honoured("all objects to each host, or each object to one host")

STOPPING_CONDITION: Rows = {
    "MaxRuntimeInSeconds": Honoured("after this time the job is stopped, as by a Stop request"),
    "MaxWaitTimeInSeconds": Honoured("limit for a spot job, counted from its creation"),
    "MaxPendingTimeInSeconds": NoEffect("jobs start at once"),
}

ONE_ACCOUNT = Refused("the server has one account")


def make_honoured_rows(*names: str) -> dict[str, Row]:
    """Return rows for members that have the same effect as on AWS."""
    return dict.fromkeys(names, Honoured())


PAGE_MEMBERS = ("SortBy", "SortOrder", "NextToken", "MaxResults")
"""The members of List requests that select a page."""
METADATA = Members(
    dict.fromkeys(("CommitId", "Repository", "GeneratedBy", "ProjectId"), Honoured("stored and described"))
)
"""The row of MetadataProperties."""

LIST_ROWS = make_honoured_rows(*PAGE_MEMBERS, "NameContains", "CreationTimeBefore", "CreationTimeAfter")
"""Rows of the List requests of kinds without a status."""
LIST_ROWS_WITH_STATUS = {
    **LIST_ROWS,
    **make_honoured_rows("LastModifiedTimeBefore", "LastModifiedTimeAfter", "StatusEquals"),
}
"""Rows of the List requests of kinds with a status."""
