"""The kind of models."""

from microjobs_orchestrator.local.kinds import AwsMembers, Kind

MODEL = Kind(
    arn_type="model",
    noun="Model",
    title="model",
    verbs=("Describe", "List", "Delete"),
    summaries="Models",
    newest_first=True,
    aws=AwsMembers(network="VpcConfig"),
)
