"""The kind of models."""

from microjobs_orchestrator.local.kinds import AwsMembers, Kind

MODEL = Kind(
    "model",
    "Model",
    "model",
    verbs=("Describe", "List", "Delete"),
    summaries="Models",
    newest_first=True,
    aws=AwsMembers(network="VpcConfig"),
)
