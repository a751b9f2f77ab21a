"""The Flask application: the routes that `fast_path` does not answer, and errors as JSON."""

import io
import logging
import sys
from functools import partial

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from .fast_path import FAST_ROUTES, FallbackHandler
from .listener import RequestHead
from .metrics import Metrics
from .responses import INTERNAL_ERROR, HttpError, HttpResponse
from .service import MB, Service

logger = logging.getLogger("microjobs")

MAX_CONCURRENT_PAYLOADS_MB = 100
"""SageMaker's limit of MaxConcurrentTransforms times MaxPayloadInMB.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html"""


def create_app(service: Service) -> Flask:
    app = Flask("serve", static_folder=None)
    for path, method in FAST_ROUTES:  # without a view: Flask answers other methods on these paths with status 405
        app.add_url_rule(path, f"{method} {path}", methods=[method])
    app.add_url_rule("/execution-parameters", "execution-parameters", partial(execution_parameters, service))
    app.add_url_rule("/metrics", "metrics", partial(render_metrics, service.metrics))
    app.register_error_handler(Exception, render_error)
    app.after_request(partial(count_response, service.metrics))
    return app


def execution_parameters(service: Service) -> dict[str, object]:
    """Return the parameters that suit Batch Transform."""
    payload = max(1, service.limit // MB)
    return {
        "MaxConcurrentTransforms": max(1, min(service.workers, MAX_CONCURRENT_PAYLOADS_MB // payload)),
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": payload,
    }


def render_metrics(metrics: Metrics) -> Response:
    return Response(metrics.render(), content_type="text/plain; version=0.0.4; charset=utf-8")


def render_error(error: Exception) -> Response:
    """Return the JSON response for an error of HTTP or of a view."""
    if not isinstance(error, HTTPException):
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
        return make_response(INTERNAL_ERROR.response())
    allowed = ", ".join(getattr(error, "valid_methods", None) or ())
    remedy = f"send {allowed}" if allowed else "use /ping, /invocations, /execution-parameters or /metrics"
    message = f"{request.method} {request.path} is {str(error.name).lower()}: {remedy}"
    response = make_response(HttpError(error.code or 500, message).response())
    response.headers.extend(pair for pair in error.get_headers() if pair[0] == "Allow")
    return response


def count_response(metrics: Metrics, response: Response) -> Response:
    metrics.record_request("other", response.status_code)
    return response


def make_response(response: HttpResponse) -> Response:
    return Response(response.body, response.status, response.headers)


def as_fallback_handler(app: Flask) -> FallbackHandler:
    """Return a function that answers a request without its body by this application."""

    def answer(head: RequestHead) -> HttpResponse:
        with app.request_context(wsgi_environ(head)):
            response = app.full_dispatch_request()
            return HttpResponse(response.status_code, response.headers.to_wsgi_list(), response.get_data())

    return answer


def wsgi_environ(head: RequestHead) -> dict[str, object]:
    return {
        "REQUEST_METHOD": head.method,
        "PATH_INFO": head.path.encode().decode("latin-1"),  # WSGI's way to pass bytes in a string
        "QUERY_STRING": head.query_string,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
    }
