"""CreateModel: checks of its request. Source: facts §2.4."""

from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.identity import format_arn
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.model import container, find_source
from microjobs_orchestrator.local.state import NameTakenError, Record


def create(context: Context, request: Mapping[str, Any]) -> Record:
    """Take a CreateModel request that is valid by itself.

    Raises:
        ValidationError: not one container with an image, its data is not there, or there is a model of that name.
    """
    given = container(request)
    if "Image" not in given:
        raise ValidationError("A model needs a container with an Image: give it in PrimaryContainer.")
    find_source(context, given)
    name = request["ModelName"]
    model_arn = format_arn(f"{MODEL.arn_type}/{name}", context.settings.region)
    members = {member: value for member, value in request.items() if member != "Tags"}
    description = {"EnableNetworkIsolation": False, **members, "ModelArn": model_arn}
    try:
        return context.state.add(
            MODEL.arn_type, name, model_arn, "", request, description, tags=request.get("Tags", [])
        )
    except NameTakenError as error:
        raise ValidationError(f'Cannot create already existing model "{model_arn}".') from error
