"""The operations on models.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html
"""

from microjobs_orchestrator.local.resources.models.kinds import MODEL
from microjobs_orchestrator.local.resources.models.serving import find_data, get_container
from microjobs_orchestrator.local.resources.operations import Operations, Request, add_resource
from microjobs_orchestrator.local.state import Record


class ModelOperations(Operations):
    kind = MODEL

    def add(self, request: Request) -> Record:
        find_data(self.context, get_container(request))
        return add_resource(self.context, MODEL, request, defaults={"EnableNetworkIsolation": False})
