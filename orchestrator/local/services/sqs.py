"""SQS: queues, such as those that receive the messages of Callback steps, or EventBridge events.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/Welcome.html
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT, QUEUE_NAME_PATTERN
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.queues import VISIBILITY_TIMEOUT, Queues, get_queue_name, make_system_attributes

LIMITS: Mapping[str, tuple[int, int]] = {
    "MaxNumberOfMessages": (1, 10),
    "WaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
"""Minimum and maximum of members of ReceiveMessage, as on AWS. Botocore's model does not contain these limits."""

MAX_MESSAGE_BYTES = 1 << 20
_MESSAGE = re.compile(r"[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
"""Matches the text that a message may contain: https://www.w3.org/TR/REC-xml/#charsets"""

Request = Mapping[str, Any]
Response = Mapping[str, Any]


class Sqs:
    """The service SQS.

    Args:
        url: the address of this server, for the URLs of queues.
    """

    def __init__(self, queues: Queues, url: str) -> None:
        self._queues = queues
        self._url = url

    def list_handlers(self) -> Service:
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

    def _find_queue_name(self, request: Request) -> str:
        """Return the name of an existing queue by the QueueUrl of a request."""
        return self._queues.require_name(get_queue_name(request["QueueUrl"]))

    def create_queue(self, request: Request) -> Response:
        """Create a queue. Raise ServiceError InvalidParameterValue if the name cannot be a part of a queue's URL."""
        name = request["QueueName"]
        if not QUEUE_NAME_PATTERN.fullmatch(name):
            message = f"QueueName {name[:100]!r} must have 1 to 80 letters, digits, hyphens and underscores."
            raise ServiceError("InvalidParameterValue", message)
        self._queues.create(name)
        return {"QueueUrl": self._make_url(name)}

    def get_queue_url(self, request: Request) -> Response:
        return {"QueueUrl": self._make_url(self._queues.require_name(request["QueueName"]))}

    def list_queues(self, request: Request) -> Response:
        urls = [self._make_url(name) for name in self._queues.list_names(request.get("QueueNamePrefix", ""))]
        page, token = cut_page(urls, request, default_limit=1000, code="InvalidParameterValue")
        return {"QueueUrls": page, **token}

    def delete_queue(self, request: Request) -> Response:
        self._queues.delete(self._find_queue_name(request))
        return {}

    def purge_queue(self, request: Request) -> Response:
        self._queues.purge(self._find_queue_name(request))
        return {}

    def send_message(self, request: Request) -> Response:
        body = request["MessageBody"]
        _check_body(body)
        return {
            "MessageId": self._queues.send(self._find_queue_name(request), body),
            "MD5OfMessageBody": _compute_md5(body),
        }

    def receive_message(self, request: Request) -> Response:
        received_messages = self._queues.receive(
            self._find_queue_name(request),
            _read_number(request, "MaxNumberOfMessages", 1),
            _read_number(request, "VisibilityTimeout", VISIBILITY_TIMEOUT),
            _read_number(request, "WaitTimeSeconds", 0),
        )
        messages = [
            {
                "MessageId": item.message_id,
                "ReceiptHandle": item.handle,
                "Body": item.body,
                "MD5OfBody": _compute_md5(item.body),
                "Attributes": make_system_attributes(item),
            }
            for item in received_messages
        ]
        return {"Messages": messages} if messages else {}

    def delete_message(self, request: Request) -> Response:
        self._queues.delete_message(self._find_queue_name(request), request["ReceiptHandle"])
        return {}


def _read_number(request: Request, member: str, default: int) -> int:
    """Return a number of a request. Raise ServiceError InvalidParameterValue if it exceeds AWS's limits."""
    value, (minimum, maximum) = int(request.get(member, default)), LIMITS[member]
    if not minimum <= value <= maximum:
        raise ServiceError("InvalidParameterValue", f"{member} {value} must be from {minimum} to {maximum}.")
    return value


def _check_body(body: str) -> None:
    """Raise ServiceError if AWS would refuse the body of a message."""
    if (size := len(body.encode())) > MAX_MESSAGE_BYTES:
        message = f"MessageBody has {size} bytes: a message may have at most {MAX_MESSAGE_BYTES}."
        raise ServiceError("InvalidParameterValue", message)
    if not _MESSAGE.fullmatch(body):
        message = "MessageBody is empty, or contains a control character: a message must be text that XML can contain."
        raise ServiceError("InvalidMessageContents", message)


def _compute_md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
