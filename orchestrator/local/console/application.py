"""The console's routes: its files, log-in, changes, and operations."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from werkzeug import Request, Response

from microjobs_orchestrator.local.console.assets import Assets
from microjobs_orchestrator.local.console.checks import check_api_request, check_origin, make_headers
from microjobs_orchestrator.local.console.code.requests import Requests
from microjobs_orchestrator.local.console.code_route import CodeOfRequests
from microjobs_orchestrator.local.console.downloads import PATH, Downloads
from microjobs_orchestrator.local.console.feed import Feed
from microjobs_orchestrator.local.console.objects import Objects
from microjobs_orchestrator.local.console.operations import (
    MAX_BODY_BYTES,
    MAX_BODY_BYTES_BY_SERVICE,
    Call,
    make_caller,
)
from microjobs_orchestrator.local.console.sessions import Keys, Sessions
from microjobs_orchestrator.local.console_address import CONSOLE_PATH, read_token
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.exchange import AnyService, Exchange
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.kinds import Kind, all_kinds
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.protocols.aws_json import parse_object
from microjobs_orchestrator.local.protocols.protocol import get_protocol
from microjobs_orchestrator.local.state import State

API_PATH = f"{CONSOLE_PATH}api/"
SECRET_HEADER = "X-Microjobs-Console"  # noqa: S105  the name of a header
MAX_LOGIN_BYTES = 4 << 10
"""Limit for the body of a log-in. Bodies of this size are received with the headers, so they occupy no thread."""

Route = Callable[[Exchange], Response]


def make_console(home: Home, services: Mapping[str, AnyService], feed: Feed, logs: LogStore, state: State) -> "Console":
    """Return the console of a server.

    Args:
        services: handlers by botocore's name of the service.
        feed: the changes of resources.
        logs: the output of hosts.
        state: all resources.
    """
    verify = partial(read_token, key=home.server_key(), home=home.root, pid=os.getpid())
    downloads = Downloads(logs)
    objects = Objects(services["s3"], downloads)
    operations = services["sagemaker"]
    if not isinstance(operations, Mapping):
        raise TypeError("SageMaker is a streaming service")
    code = CodeOfRequests(Requests(state, operations))
    return Console(Assets(), Sessions(verify), make_caller(services), feed, downloads, objects, code)


class Console:
    """The console. `intercept` is the gateway's first interceptor on the listener for clients."""

    def __init__(
        self,
        assets: Assets,
        sessions: Sessions,
        call: Call,
        feed: Feed,
        downloads: Downloads,
        objects: Objects,
        code: CodeOfRequests,
    ) -> None:
        self._assets = assets
        self._sessions = sessions
        self._call = call
        self._feed = feed
        self._downloads = downloads
        self._routes: Mapping[str, Route] = {
            "kinds": lambda _: _format([_describe_kind(kind) for kind in all_kinds()]),
            "changes": self._open_stream,
            "logs": lambda exchange: downloads.add_log(exchange, _get_cookie(exchange.request)),
            "objects": lambda exchange: objects.add_download(exchange, _get_cookie(exchange.request)),
            "code": code.read,
            "objects/preview": objects.preview,
            "objects/archive": objects.list_archive,
        }

    def intercept(self, exchange: Exchange) -> Response | None:
        """Answer a request below `CONSOLE_PATH`."""
        request = exchange.request
        if not f"{request.path}/".startswith(CONSOLE_PATH):
            return None
        exchange.protocol = get_protocol("json")
        exchange.headers = make_headers(request)
        check_origin(request)
        if request.path.startswith(API_PATH):
            response = self._answer(exchange, request.path.removeprefix(API_PATH))
            response.headers["Cache-Control"] = "no-store"
            return response
        if request.path == CONSOLE_PATH.rstrip("/"):
            return Response(status=308, headers={"Location": CONSOLE_PATH})
        return self._assets.respond(request, request.path.removeprefix(CONSOLE_PATH))

    def _answer(self, exchange: Exchange, path: str) -> Response:
        if path.startswith(PATH) and exchange.request.method == "GET":
            return self._downloads.open(path.removeprefix(PATH), _get_cookie(exchange.request))
        if path == "sessions":
            check_api_request(exchange.request, MAX_LOGIN_BYTES)
            return self._log_in(exchange.request)
        service, _, operation = path.partition("/")
        check_api_request(exchange.request, MAX_BODY_BYTES_BY_SERVICE.get(service, MAX_BODY_BYTES))
        self._sessions.check(Keys(_get_cookie(exchange.request), exchange.request.headers.get(SECRET_HEADER, "")))
        if path in self._routes:
            return self._routes[path](exchange)
        return self._call(exchange, service, operation)

    def _open_stream(self, exchange: Exchange) -> Response:
        """Return the stream of changes, which ends with the session."""
        is_allowed = partial(self._sessions.is_open, _get_cookie(exchange.request))
        return Response(self._feed.open(is_allowed), content_type="text/event-stream")

    def _log_in(self, request: Request) -> Response:
        token = parse_object("sessions", request.get_data()).get("token")
        if not isinstance(token, str):
            raise ServiceError("ValidationException", "the body must have the text 'token'")
        keys = self._sessions.open(token)
        response = _format({"secret": keys.secret})
        name = _get_cookie_name(request)
        response.set_cookie(name, keys.cookie, path=CONSOLE_PATH, httponly=True, samesite="Strict")
        return response


def _get_cookie_name(request: Request) -> str:
    """Return a name with the port: browsers have one set of cookies for all ports of an address."""
    return f"microjobs-console-{request.environ['SERVER_PORT']}"


def _get_cookie(request: Request) -> str:
    return request.cookies.get(_get_cookie_name(request), "")


def _format(value: Any) -> Response:
    return Response(json.dumps(value), content_type="application/json")


def _describe_kind(kind: Kind) -> dict[str, Any]:
    """Return the facts about a kind with which the pages list and describe its resources."""
    return {
        "type": kind.arn_type,
        "noun": kind.noun,
        "title": kind.title,
        "words": kind.words,
        "operations": kind.operations,
        "nameMember": kind.name_member,
        "arnMember": kind.arn_member,
        "identifierMember": kind.identifier_member,
        "statusMember": kind.status_member,
        "summariesMember": kind.summaries_member,
        "statusFilter": kind.status_filter,
        "filtersNames": kind.filters_names,
        "isIdentifiedByArn": kind.is_identified_by_arn,
        "partOf": kind.part_of.arn_type if kind.part_of else None,
        "logs": asdict(kind.logs) if kind.logs else None,
        "lifecycle": _describe_lifecycle(kind),
    }


def _describe_lifecycle(kind: Kind) -> dict[str, Any] | None:
    if (lifecycle := kind.lifecycle) is None:
        return None
    return {
        "statuses": list(lifecycle.statuses),
        "success": lifecycle.success,
        "transitional": list(lifecycle.transitional),
        "active": list(lifecycle.active),
        "isLasting": lifecycle.is_lasting,
        "startMember": lifecycle.start_member,
        "endMember": lifecycle.end_member,
    }
