"""The operations on models.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html
"""

from collections.abc import Sequence

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.model_registry.containers import find_containers
from microjobs_orchestrator.local.resources.models.capabilities import (
    BIND_TO_PORT_LABEL,
    MULTI_MODELS_LABEL,
    check_label,
)
from microjobs_orchestrator.local.resources.models.containers import (
    PACKAGED_CONTAINERS,
    Container,
    check_containers,
    list_containers,
    uses_direct_mode,
)
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.model_data import find_data, is_multi_model, list_additional_data
from microjobs_orchestrator.local.resources.models.multi_model import check_multi_model_members
from microjobs_orchestrator.local.resources.operations import Operations, Request, add_resource
from microjobs_orchestrator.local.state import Record


class ModelOperations(Operations):
    kind = MODEL

    def add(self, request: Request) -> Record:
        if "PrimaryContainer" in request and request.get("Containers"):
            raise ValidationError("PrimaryContainer and Containers cannot be combined: remove one of them.")
        requested_containers = list_containers(request)
        for container in requested_containers:
            check_multi_model_members(self.context.store, container)
        containers = [resolved for container in requested_containers for resolved in self._resolve(container)]
        check_containers(containers, uses_direct_mode=uses_direct_mode(request))
        for container in containers:
            if is_multi_model(container):
                check_label(self.context, container["Image"], MULTI_MODELS_LABEL)
            if len(containers) > 1:
                check_label(self.context, container["Image"], BIND_TO_PORT_LABEL)
            for definition in (container, *list_additional_data(container).values()):
                find_data(self.context.store, definition)
        is_packaged = any("ModelPackageName" in container for container in requested_containers)
        referenced_resources = {PACKAGED_CONTAINERS: containers} if is_packaged else {}
        defaults = {"EnableNetworkIsolation": False}
        return add_resource(self.context, MODEL, request, defaults=defaults, referenced_resources=referenced_resources)

    def _resolve(self, container: Container) -> Sequence[Container]:
        """Return the containers of the package that a container names, or the container itself."""
        return find_containers(self.context, container) if "ModelPackageName" in container else [container]
