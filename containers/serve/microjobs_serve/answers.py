"""What a request is answered with, and how a refusal says why."""

import json
import reprlib
from typing import NamedTuple

JSON = "application/json"


class Answer(NamedTuple):
    """One HTTP answer; `rows` is how many predictions it holds, for the metrics."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    rows: int = 0


class Problem(Exception):  # noqa: N818 - "problem" is HTTP's own word for an error told to the client
    """A request that is refused: the status, and one sentence with what, which value and what to do."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers

    def answer(self) -> Answer:
        """The JSON error body `{"error": sentence}`."""
        headers = [(name.replace("_", "-"), value) for name, value in self.headers.items()]
        return Answer(self.status, [("content-type", JSON), *headers], json.dumps({"error": str(self)}).encode())


FAILED = Problem(500, "the server failed on this request: the reason is in its log")
BUSY = Problem(503, "too many requests are waiting: send fewer at a time", retry_after="1")


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100


def shown(value: object, limit: int = 60) -> str:
    """Format a client's value for a sentence: short, however long or deeply nested the value is."""
    text = _repr.repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
