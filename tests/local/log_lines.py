"""Helper that writes lines of hosts to log streams."""

from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.runtimes.base import Line


def append_line(stream: LogStream, seconds: float, text: bytes) -> None:
    """Append one line to a stream, with a time in seconds since 1970."""
    with stream.writer() as write:
        write(Line(seconds, text))
