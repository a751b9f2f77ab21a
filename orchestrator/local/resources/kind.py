"""The type of the values that declare resource kinds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of resource, and its names in SageMaker's API."""

    arn_type: str
    """In ARNs and in the state: `training-job`."""
    noun: str
    """In names of operations and members: `TrainingJob`."""
