"""Rows that several requests share."""

from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoMeaning, Refused, Row, Rows

ROLE = NoMeaning("nothing here asks for permission")
KMS = NoMeaning("nothing is encrypted here")
VOLUME = NoMeaning("the disk is this machine's")
VPC = NoMeaning("there is no VPC; jobs have a network of their own")
EXPERIMENT = NoMeaning("there is no experiment tracking")
TRAFFIC = NoMeaning("traffic between hosts does not leave this machine")

TAGS = Members({"Key": Honoured(), "Value": Honoured()})

INSTANCE_TYPE = Honoured(
    "a GPU type gets this machine's GPUs; with `--limits`, cores and memory of the type", needed=True
)
ONE_MACHINE = "they would all be on this one machine"
HOSTS = Honoured(
    "as many containers, `algo-1` …, on a network of their own", needed=True, least=1, most=100, why=ONE_MACHINE
)
ONE_TYPE = Refused("one instance type and count: give InstanceType and InstanceCount")

ISOLATION = Honoured("the hosts reach each other and nothing else; the runtime `process` refuses it")
ENVIRONMENT = Honoured("variables of every host")
ENTRYPOINT = Honoured("in place of the image's own")
ARGUMENTS = Honoured("in place of the image's own")

HUB = Refused("there is no hub: put the files into a bucket")
ACCESS = Refused("there are no models with a licence to accept: put the files into a bucket")

S3_PREFIX = Honoured("objects whose keys begin so", only=("S3Prefix",), why="put the objects under one prefix")
DISTRIBUTION = Honoured("all objects to each host, or each to one")

STOPPING: Rows = {
    "MaxRuntimeInSeconds": Honoured("then the job is stopped, as by a Stop request"),
    "MaxWaitTimeInSeconds": Honoured("of a spot job, from its creation on"),
    "MaxPendingTimeInSeconds": NoMeaning("a job starts at once"),
}

ONE_ACCOUNT = Refused("the server has one account")


def honoured(*names: str) -> dict[str, Row]:
    """Rows for members that do what they do on AWS."""
    return {name: Honoured() for name in names}


LIST_PAGES = ("SortBy", "SortOrder", "NextToken", "MaxResults")
"""The members of List requests that choose a page."""
LIST = honoured(*LIST_PAGES, "NameContains", "CreationTimeBefore", "CreationTimeAfter")
"""Rows of the List requests of kinds without a status."""
LIST_WITH_STATUS = {**LIST, **honoured("LastModifiedTimeBefore", "LastModifiedTimeAfter", "StatusEquals")}
"""Rows of the List requests of kinds with a status."""
