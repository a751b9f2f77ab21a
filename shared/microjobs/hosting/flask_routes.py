"""The Flask application: the routes that `fast_path` does not answer, and errors as JSON."""

import io
import logging
import sys

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from .fast_path import FAST_ROUTES, FallbackHandler
from .listener import RequestHead
from .responses import INTERNAL_ERROR, HttpError, HttpResponse
from .service import MB, Service

logger = logging.getLogger("microjobs")

MAX_CONCURRENT_PAYLOADS_MB = 100
"""SageMaker's limit of MaxConcurrentTransforms times MaxPayloadInMB.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html"""


def create_app(service: Service) -> Flask:
    app, metrics = Flask("serve", static_folder=None), service.metrics
    # These rules have no view. With them, Flask answers other methods on the same paths with status 405, not 404.
    for path, method in FAST_ROUTES:
        app.add_url_rule(path, f"{method} {path}", methods=[method])

    @app.get("/execution-parameters")
    def execution_parameters() -> dict[str, object]:
        """Return the parameters that suit Batch Transform."""
        payload_mb = max(1, service.max_body_bytes // MB)
        return {
            "MaxConcurrentTransforms": max(1, min(service.worker_count, MAX_CONCURRENT_PAYLOADS_MB // payload_mb)),
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": payload_mb,
        }

    @app.get("/metrics")
    def render_metrics() -> Response:
        return Response(metrics.render(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @app.after_request
    def count_response(response: Response) -> Response:
        metrics.record_request("other", response.status_code)
        return response

    app.register_error_handler(Exception, _render_error)
    return app


def _render_error(error: Exception) -> Response:
    """Return the JSON response for an HTTP error or for an exception of a view."""
    if isinstance(error, HTTPException):
        methods = ", ".join(getattr(error, "valid_methods", None) or ())
        remedy = f"send {methods}" if methods else "use /ping, /invocations, /execution-parameters or /metrics"
        message = f"{request.method} {request.path} is {str(error.name).lower()}: {remedy}"
        response = HttpError(error.code or 500, message).response()
        response.headers.extend(pair for pair in error.get_headers() if pair[0] == "Allow")
    else:
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
        response = INTERNAL_ERROR.response()
    return Response(response.body, response.status, response.headers)


def as_fallback_handler(app: Flask) -> FallbackHandler:
    """Return a function that passes a request without its body to a Flask application."""

    def answer(head: RequestHead) -> HttpResponse:
        environ = {
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
        with app.request_context(environ):
            response = app.full_dispatch_request()
            return HttpResponse(response.status_code, response.headers.to_wsgi_list(), response.get_data())

    return answer
