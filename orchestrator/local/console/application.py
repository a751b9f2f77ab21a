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
from microjobs_orchestrator.local.console.code.requests import CreateRequests
from microjobs_orchestrator.local.console.code_route import CodeRoute
from microjobs_orchestrator.local.console.downloads import DOWNLOADS_PATH, Downloads
from microjobs_orchestrator.local.console.feed import Feed
from microjobs_orchestrator.local.console.objects import Objects
from microjobs_orchestrator.local.console.operations import (
    MAX_BODY_BYTES,
    MAX_BODY_BYTES_BY_SERVICE,
    CallOperation,
    make_operation_caller,
)
from microjobs_orchestrator.local.console.sessions import SessionKeys, Sessions
from microjobs_orchestrator.local.console_address import CONSOLE_PATH, read_token
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.request_state import AnyService, RequestState
from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.logs import LogStore
from microjobs_orchestrator.local.protocols.aws_json import parse_object
from microjobs_orchestrator.local.protocols.protocol import get_protocol
from microjobs_orchestrator.local.protocols.responses import HttpResponse
from microjobs_orchestrator.local.state import State

API_PATH = f"{CONSOLE_PATH}api/"
SECRET_HEADER = "X-Microjobs-Console"  # noqa: S105  the name of a header
MAX_LOGIN_BYTES = 4 << 10
"""Maximum size of the body of a log-in request. Bodies of this size are received with the headers, so that slow senders
occupy no thread."""

Route = Callable[[RequestState], HttpResponse]


def make_console(home: Home, services: Mapping[str, AnyService], feed: Feed, logs: LogStore, state: State) -> "Console":
    """Return the console of a server.

    Args:
        services: the server's services, by botocore's names.
        feed: the changes of resources.
        logs: the output of hosts.
        state: all resources.
    """
    read_console_token = partial(read_token, key=home.server_key(), home=home.root, pid=os.getpid())
    downloads = Downloads(logs)
    objects = Objects(services["s3"], downloads)
    operations = services["sagemaker"]
    if not isinstance(operations, Mapping):
        raise TypeError("SageMaker is a streaming service")
    code = CodeRoute(CreateRequests(state, operations))
    return Console(
        Assets(), Sessions(read_console_token), make_operation_caller(services), feed, downloads, objects, code
    )


class Console:
    """The console. `intercept` is the gateway's first interceptor on the listener for clients."""

    def __init__(
        self,
        assets: Assets,
        sessions: Sessions,
        call_operation: CallOperation,
        feed: Feed,
        downloads: Downloads,
        objects: Objects,
        code: CodeRoute,
    ) -> None:
        self._assets = assets
        self._sessions = sessions
        self._call_operation = call_operation
        self._feed = feed
        self._downloads = downloads
        self._routes: Mapping[str, Route] = {
            "kinds": lambda _: _make_json_response([_describe_kind(kind) for kind in load_kinds()]),
            "changes": self._open_stream,
            "logs": lambda state: downloads.add_log(state, _get_cookie(state.request)),
            "objects": lambda state: objects.add_download(state, _get_cookie(state.request)),
            "code": code.respond,
            "objects/preview": objects.preview,
            "objects/archive": objects.list_archive,
        }

    def intercept(self, state: RequestState) -> HttpResponse | None:
        """Answer a request below `CONSOLE_PATH`."""
        request = state.request
        if not f"{request.path}/".startswith(CONSOLE_PATH):
            return None
        state.protocol = get_protocol("json")
        state.headers = make_headers(request)
        check_origin(request)
        if request.path.startswith(API_PATH):
            response = self._answer(state, request.path.removeprefix(API_PATH))
            response.headers["Cache-Control"] = "no-store"
            return response
        if request.path == CONSOLE_PATH.rstrip("/"):
            return Response(status=308, headers={"Location": CONSOLE_PATH})
        return self._assets.respond(request, request.path.removeprefix(CONSOLE_PATH))

    def _answer(self, state: RequestState, path: str) -> HttpResponse:
        if path.startswith(DOWNLOADS_PATH) and state.request.method == "GET":
            return self._downloads.open(path.removeprefix(DOWNLOADS_PATH), _get_cookie(state.request))
        if path == "sessions":
            check_api_request(state.request, MAX_LOGIN_BYTES)
            return self._log_in(state.request)
        service, _, operation = path.partition("/")
        check_api_request(state.request, MAX_BODY_BYTES_BY_SERVICE.get(service, MAX_BODY_BYTES))
        self._sessions.check(SessionKeys(_get_cookie(state.request), state.request.headers.get(SECRET_HEADER, "")))
        if path in self._routes:
            return self._routes[path](state)
        return self._call_operation(state, service, operation)

    def _open_stream(self, state: RequestState) -> Response:
        """Return the stream of changes. It ends when the session ends."""
        is_allowed = partial(self._sessions.is_open, _get_cookie(state.request))
        return Response(self._feed.open(is_allowed), content_type="text/event-stream")

    def _log_in(self, request: Request) -> Response:
        members = parse_object("sessions", request.get_data())
        token, page_key = members.get("token"), members.get("key", "")
        if not isinstance(token, str) or not isinstance(page_key, str):
            raise ServiceError(
                "ValidationException", "the body must have the members 'token' and 'key', which are text"
            )
        keys = self._sessions.open(token, page_key)
        response = _make_json_response({"secret": keys.secret})
        name = _get_cookie_name(request)
        response.set_cookie(name, keys.cookie, path=CONSOLE_PATH, httponly=True, samesite="Strict")
        return response


def _get_cookie_name(request: Request) -> str:
    """Return a name that contains the port, because browsers have one set of cookies for all ports of an address."""
    return f"microjobs-console-{request.environ['SERVER_PORT']}"


def _get_cookie(request: Request) -> str:
    return request.cookies.get(_get_cookie_name(request), "")


def _make_json_response(content: Any) -> Response:
    return Response(json.dumps(content), content_type="application/json")


def _describe_kind(kind: Kind) -> dict[str, Any]:
    """Return the facts about a kind that the pages need to list and describe its resources."""
    return {
        "type": kind.arn_type,
        "noun": kind.noun,
        "title": kind.title,
        "displayName": kind.display_name,
        "operations": kind.operations,
        "nameMember": kind.name_member,
        "arnMember": kind.arn_member,
        "identifierMember": kind.identifier_member,
        "statusMember": kind.status_member,
        "summariesMember": kind.summaries_member,
        "statusFilter": kind.status_filter,
        "filtersNames": kind.filters_names,
        "isIdentifiedByArn": kind.is_identified_by_arn,
        "parentType": kind.parent.arn_type if kind.parent else None,
        "logs": asdict(kind.logs) if kind.logs else None,
        "lifecycle": _describe_lifecycle(kind),
    }


def _describe_lifecycle(kind: Kind) -> dict[str, Any] | None:
    if (lifecycle := kind.lifecycle) is None:
        return None
    return {
        "statuses": list(lifecycle.statuses),
        "successStatus": lifecycle.success_status,
        "transitionalStatuses": list(lifecycle.transitional_statuses),
        "activeStatuses": list(lifecycle.active_statuses),
        "startMember": lifecycle.start_member,
        "endMember": lifecycle.end_member,
    }
