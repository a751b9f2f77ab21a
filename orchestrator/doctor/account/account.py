"""An AWS account, as checks see it."""

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from microjobs_orchestrator.aws.backend import CLIENT
from microjobs_orchestrator.aws.settings import Settings
from microjobs_orchestrator.local.home import Home

CONFIG = CLIENT.merge(Config(retries={"mode": "standard", "max_attempts": 2}))
"""Few retries: a check reports a service that does not answer."""
DEPLOY_TEMPLATE = "deploy the template that `microjobs init` writes"


@dataclass(frozen=True)
class Account:
    session: boto3.Session
    settings: Settings
    home: Home

    def client(self, service: str) -> Any:
        return self.session.client(service, config=CONFIG)  # type: ignore[call-overload]  # any service
