"""The WSGI callable in front of Flask: answers the two routes that carry the load, leaves the rest to Flask."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from answers import STATUS_LINES
from service import Environ, Service


class StartResponse(Protocol):
    """WSGI's start_response, as far as it is used here."""

    def __call__(self, status: str, headers: list[tuple[str, str]], /) -> Any: ...


CLOSE = ("connection", "close")

Wsgi = Callable[[Environ, Any], Iterable[bytes]]


def hot(service: Service, rest: Callable[[], Wsgi]) -> Wsgi:
    """Answer GET /ping and POST /invocations; `rest()` gives the application for everything else."""

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/invocations" and environ["REQUEST_METHOD"] == "POST":
            answer = service.invoke(environ)
        elif path == "/ping" and environ["REQUEST_METHOD"] == "GET":
            answer = service.ping()
        else:
            return rest()(environ, start_response)
        # A server that stops asks its clients to come back on a new connection, so that none sends into a closing one.
        headers = [*answer.headers, CLOSE] if service.metrics.stopping() else answer.headers
        start_response(STATUS_LINES[answer.status], headers)
        return [answer.body]

    return application
