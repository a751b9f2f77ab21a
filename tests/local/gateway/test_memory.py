"""A request is freed with its response, without the garbage collector.

An idle server allocates too little memory to trigger the collector, so the last large bodies would stay in memory."""

import gc
import weakref
from collections.abc import Callable

import pytest
from werkzeug import Response
from werkzeug.test import EnvironBuilder

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.gateway.chain import Gateway
from microjobs_orchestrator.local.gateway.claims import AuthError
from microjobs_orchestrator.local.gateway.request_state import RequestState


def respond(_: RequestState) -> Response:
    return Response("done")


def refuse(_: RequestState) -> Response:
    raise ServiceError("ValidationException", "refused")


def refuse_sender(_: RequestState) -> Response:
    raise AuthError("signature", "refused")


@pytest.mark.parametrize("last_interceptor", [respond, refuse, refuse_sender])
def test_request_is_freed_without_the_garbage_collector(last_interceptor: Callable[[RequestState], Response]) -> None:
    requests = []

    def remember(state: RequestState) -> None:
        requests.append(weakref.ref(state.request))

    gc.disable()
    try:
        list(Gateway([remember, last_interceptor])(EnvironBuilder().get_environ(), lambda *_: lambda _: None))
        assert [request() for request in requests] == [None]
    finally:
        gc.enable()
