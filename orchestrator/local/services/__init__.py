"""The services' operations: each module makes a mapping from an operation's name to what answers it."""

from collections.abc import Callable, Mapping
from typing import Any

Service = Mapping[str, Callable[[dict[str, Any]], Mapping[str, Any]]]
"""Operation name → handler. A handler takes the request's members as the wire has them (times in seconds) and gives
the answer's; it raises `ServiceError`. The request has been validated."""
