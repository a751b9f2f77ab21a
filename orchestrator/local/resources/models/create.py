"""CreateModel: checks of its request. Source: facts §2.4."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.model import container, find_source
from microjobs_orchestrator.local.resources.records import add_resource
from microjobs_orchestrator.local.state import Record


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Take a CreateModel request that is valid by itself.

    Raises:
        ValidationError: not one container with an image, its data is not there, or there is a model of that name.
    """
    given = container(request)
    if "Image" not in given:
        raise ValidationError("A model needs a container with an Image: give it in PrimaryContainer.")
    find_source(context, given)
    return add_resource(context, MODEL, request, defaults={"EnableNetworkIsolation": False})
