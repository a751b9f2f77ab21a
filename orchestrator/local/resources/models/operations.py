"""The operations on models.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html
"""

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.resources.model_registry.containers import find_container
from microjobs_orchestrator.local.resources.models.capabilities import MULTI_MODELS, check_label
from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.model_data import find_data, is_multi_model
from microjobs_orchestrator.local.resources.models.multi_model import check_container
from microjobs_orchestrator.local.resources.models.serving import PACKAGED_CONTAINER, get_container
from microjobs_orchestrator.local.resources.operations import Operations, Request, add_resource
from microjobs_orchestrator.local.state import Record


class ModelOperations(Operations):
    kind = MODEL

    def add(self, request: Request) -> Record:
        container = get_container(request)
        check_container(self.context.store, container)
        copies = {}
        if "ModelPackageName" in container:
            container = find_container(self.context, container)
            copies[PACKAGED_CONTAINER] = container
        if not container.get("Image"):
            raise ValidationError("A container must have an Image, or a ModelPackageName whose package has an Image.")
        if is_multi_model(container):
            check_label(self.context, container["Image"], MULTI_MODELS)
        find_data(self.context.store, container)
        defaults = {"EnableNetworkIsolation": False}
        return add_resource(self.context, MODEL, request, defaults=defaults, copies=copies)
