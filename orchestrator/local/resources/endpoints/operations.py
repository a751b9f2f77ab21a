"""The operations on endpoints and their configurations."""

from collections.abc import Mapping

from microjobs_orchestrator.local.lifecycle.registry import Runnable
from microjobs_orchestrator.local.resources.endpoints import requests
from microjobs_orchestrator.local.resources.endpoints.endpoint import Endpoint
from microjobs_orchestrator.local.resources.endpoints.kinds import ENDPOINT, ENDPOINT_CONFIG
from microjobs_orchestrator.local.resources.operations import Answer, Handler, Operations, Request, RunningOperations
from microjobs_orchestrator.local.state import Record


class EndpointConfigOperations(Operations):
    kind = ENDPOINT_CONFIG

    def add(self, request: Request) -> Record:
        return requests.create_config(self.context, request)


class EndpointOperations(RunningOperations):
    kind = ENDPOINT

    def add(self, request: Request) -> Record:
        return requests.create(self.context, request)

    def make_runnable(self, record: Record) -> Runnable:
        return Endpoint(self.context, record)

    def more(self) -> Mapping[str, Handler]:
        return {"UpdateEndpoint": self.update, "UpdateEndpointWeightsAndCapacities": self.update_weights}

    def update(self, request: Request) -> Answer:
        self.find(request)
        return {"EndpointArn": requests.update(self.context, self.registry, request).arn}

    def update_weights(self, request: Request) -> Answer:
        self.find(request)
        return {"EndpointArn": requests.reweigh(self.context, self.registry, request).arn}

    def delete(self, request: Request) -> Answer:
        requests.delete(self.context, self.registry, self.find(request).name)
        return {}
