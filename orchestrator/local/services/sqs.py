"""SQS: the queues that receive the messages of Callback steps.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/Welcome.html
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local import queues
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.protocols.answer import Service
from microjobs_orchestrator.local.state import Query, State

MAX_QUEUES = 1_000_000
QUEUE_NAME = re.compile(r"(?!.{81})[A-Za-z0-9_-]+(\.fifo)?")
"""AWS's names of queues. The model lacks the pattern."""
LIMITS: Mapping[str, tuple[int, int]] = {
    "MaxNumberOfMessages": (1, 10),
    "WaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
"""Minimum and maximum of members of ReceiveMessage, as on AWS. The model lacks them."""

Request = Mapping[str, Any]
Answer = Mapping[str, Any]


class Sqs:
    """The service.

    Args:
        url: the address of this server, for the URLs of queues.
    """

    def __init__(self, state: State, url: str) -> None:
        self._state = state
        self._url = url

    def operations(self) -> Service:
        return {
            "CreateQueue": self.create_queue,
            "GetQueueUrl": self.get_queue_url,
            "ListQueues": self.list_queues,
            "DeleteQueue": self.delete_queue,
            "PurgeQueue": self.purge_queue,
            "SendMessage": self.send_message,
            "ReceiveMessage": self.receive_message,
            "DeleteMessage": self.delete_message,
        }

    def _make_url(self, name: str) -> str:
        return f"{self._url}/{ACCOUNT}/{name}"

    def _find(self, request: Request) -> str:
        """Return the name of an existing queue by the QueueUrl of a request."""
        return queues.find_queue(self._state, queues.get_queue_name(request["QueueUrl"])).name

    def create_queue(self, request: Request) -> Answer:
        """Create a queue. Raise ServiceError InvalidParameterValue if its URL could not contain the name."""
        name = request["QueueName"]
        if not QUEUE_NAME.fullmatch(name):
            message = f"QueueName {name[:100]!r} must have 1 to 80 letters, digits, hyphens and underscores."
            raise ServiceError("InvalidParameterValue", message)
        queues.create_queue(self._state, name)
        return {"QueueUrl": self._make_url(name)}

    def get_queue_url(self, request: Request) -> Answer:
        return {"QueueUrl": self._make_url(queues.find_queue(self._state, request["QueueName"]).name)}

    def list_queues(self, request: Request) -> Answer:
        prefix = request.get("QueueNamePrefix", "")
        query = Query(queues.QUEUE_KIND, name_prefix=prefix, order_by="name", descending=False, limit=MAX_QUEUES)
        urls = [self._make_url(record.name) for record in self._state.find(query)]
        page, token = cut_page(urls, request, default_limit=1000, code="InvalidParameterValue")
        return {"QueueUrls": page, **token}

    def delete_queue(self, request: Request) -> Answer:
        queues.delete_queue(self._state, self._find(request))
        return {}

    def purge_queue(self, request: Request) -> Answer:
        queues.purge(self._state, self._find(request))
        return {}

    def send_message(self, request: Request) -> Answer:
        body = request["MessageBody"]
        return {"MessageId": queues.send(self._state, self._find(request), body), "MD5OfMessageBody": _digest(body)}

    def receive_message(self, request: Request) -> Answer:
        received = queues.receive(
            self._state,
            self._find(request),
            _read(request, "MaxNumberOfMessages", 1),
            _read(request, "VisibilityTimeout", queues.VISIBILITY_TIMEOUT),
            _read(request, "WaitTimeSeconds", 0),
        )
        messages = [
            {
                "MessageId": item.message_id,
                "ReceiptHandle": item.handle,
                "Body": item.body,
                "MD5OfBody": _digest(item.body),
                "Attributes": queues.describe(item),
            }
            for item in received
        ]
        return {"Messages": messages} if messages else {}

    def delete_message(self, request: Request) -> Answer:
        queues.delete_message(self._state, self._find(request), request["ReceiptHandle"])
        return {}


def _read(request: Request, member: str, default: int) -> int:
    """Return a number of a request. Raise ServiceError InvalidParameterValue if it exceeds AWS's limits."""
    value, (minimum, maximum) = int(request.get(member, default)), LIMITS[member]
    if not minimum <= value <= maximum:
        raise ServiceError("InvalidParameterValue", f"{member} {value} must be from {minimum} to {maximum}.")
    return value


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
