"""CreateModel: checks of the request.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html
"""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.model import container, find_source
from microjobs_orchestrator.local.resources.records import add_resource
from microjobs_orchestrator.local.state import Record


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Check a CreateModel request and add the model.

    Raises:
        ValidationError: the request does not have exactly one container with an image, the container's data does not
            exist, or a model of that name exists.
    """
    definition = container(request)
    if "Image" not in definition:
        raise ValidationError("A model needs a container with an Image: give it in PrimaryContainer.")
    find_source(context, definition)
    return add_resource(context, MODEL, request, defaults={"EnableNetworkIsolation": False})
