"""The Flask application: every route, and errors as JSON."""

import io
import logging
import sys
import time
from collections.abc import Callable

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from .answers import FAILED, JSON, Answer, Problem
from .models import Request
from .rsgi import Scope
from .service import MB, Service

logger = logging.getLogger("microjobs")

PAYLOADS_LIMIT_MB = 100
"""SageMaker refuses a transform job whose MaxPayloadInMB times MaxConcurrentTransforms is more."""


def create(service: Service) -> Flask:
    """The application; in a worker `hot.Front` answers two of its routes before it is asked."""
    app = Flask("serve", static_folder=None)

    @app.get("/ping")
    def ping() -> Response:
        return respond(service.ping())

    @app.post("/invocations")
    def invocations() -> Response:
        get = request.headers.get
        attributes = get("X-Amzn-SageMaker-Custom-Attributes", "")
        body = Request(request.get_data(), get("Content-Type", ""), get("Accept", ""), attributes, request.headers)
        return respond(service.invoke(body, time.perf_counter()))

    @app.get("/execution-parameters")
    def execution_parameters() -> dict[str, object]:
        payload = max(1, service.limit // MB)
        return {
            "MaxConcurrentTransforms": max(1, min(service.workers, PAYLOADS_LIMIT_MB // payload)),
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": payload,
        }

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.render(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @app.errorhandler(Exception)
    def refuse(error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            logger.error("%s %s failed", request.method, request.path, exc_info=error)
            return respond(FAILED.answer())
        response = Response(headers=[pair for pair in error.get_headers() if pair[0] == "Allow"])
        allowed = ", ".join(getattr(error, "valid_methods", None) or ())
        hint = f"send {allowed}" if allowed else "use /ping, /invocations, /execution-parameters or /metrics"
        sentence = f"{request.method} {request.path} is {str(error.name).lower()}: {hint}"
        response.status_code = error.code or 500
        response.content_type = JSON
        response.data = Problem(response.status_code, sentence).answer().body
        return response

    @app.after_request
    def count(response: Response) -> Response:
        if request.path not in ("/ping", "/invocations") or response.status_code == 405:
            service.metrics.count("other", response.status_code)
        return response

    return app


def respond(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers)


def answering(app: Flask) -> Callable[[Scope], Answer]:
    """The application as a function of a request without a body."""

    def answer(scope: Scope) -> Answer:
        with app.request_context(_environ(scope)):
            response = app.full_dispatch_request()
            return Answer(response.status_code, response.headers.to_wsgi_list(), response.get_data())

    return answer


def _environ(scope: Scope) -> dict[str, object]:
    return {
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": scope.path.encode().decode("latin-1"),  # as WSGI wants it
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
    }
