"""Runs handlers with the modules of serve. toolkit_handlers.py runs them with AWS's toolkit.

Usage: serve_handlers.py FOLDER < programs.json > answers.json, with `shared` on PYTHONPATH.
"""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

from microjobs.errors import UserError
from microjobs.hosting.handler_model import HandlerModel
from microjobs.hosting.metrics import Metrics
from microjobs.hosting.service import Invocation, Service


class Headers:
    """The headers of a request, with Granian's interface."""

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = {name.lower(): value for name, value in fields.items()}

    def get(self, name: str, default: str = "") -> str:
        return self._fields.get(name, default)

    def items(self) -> list[tuple[str, str]]:
        return [*self._fields.items()]


def answer(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    headers = Headers(request["headers"])
    content_type, accept = headers.get("content-type"), headers.get("accept")
    invocation = Invocation(base64.b64decode(request["body"]), content_type, accept, "", headers)
    response = service.invoke(invocation, time.perf_counter())
    response_headers = dict(response.headers)
    media_type = response_headers.pop("content-type", None)
    body = base64.b64encode(response.body).decode()
    return {"status": response.status, "type": media_type, "headers": response_headers, "body": body}


def run_program(number: int, program: dict[str, Any], folder: Path) -> dict[str, Any]:
    code = folder / str(number) / "code"
    code.mkdir(parents=True)
    path = code / f"program_{number}.py"
    path.write_text(program["code"])
    service = Service(Metrics({}), max_body_bytes=1 << 20, worker_count=1)
    service.metrics.claim_worker_row()  # as each worker of serve does before it records metrics
    try:
        service.set_model(HandlerModel(path, code.parent))
    except UserError as error:
        return {"failed": str(error), "answers": []}
    return {"failed": None, "answers": [answer(service, request) for request in program["requests"]]}


def main() -> None:
    programs = json.load(sys.stdin)
    results_stream = sys.stdout
    sys.stdout = sys.stderr  # programs may print, but the standard output must contain only the results
    json.dump(
        [run_program(number, program, Path(sys.argv[1])) for number, program in enumerate(programs)], results_stream
    )


if __name__ == "__main__":
    main()
