"""Runs users' handlers with AWS's toolkit and multi-model-server, in a virtual environment of their own.

Usage: toolkit_handlers.py FOLDER < programs.json > answers.json. Each program is the code of a user's handlers, and the
requests to send to them. cases.py defines the programs.
"""

import base64
import importlib
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

from mms.service import Service
from sagemaker_inference.default_handler_service import DefaultHandlerService


class MessageReader:
    """A reader of the binary message that a worker of multi-model-server sends to its front end."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._position = 0

    def read_number(self) -> int:
        (value,) = struct.unpack_from("!i", self._message, self._position)
        self._position += 4
        return int(value)

    def read_data(self) -> bytes:
        size = self.read_number()
        self._position += size
        return self._message[self._position - size : self._position]


def answer(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    headers = [{"name": name.encode(), "value": value.encode()} for name, value in request["headers"].items()]
    content_type = request["headers"].get("Content-Type", "")
    parameters = [{"name": "body", "value": base64.b64decode(request["body"]), "contentType": content_type}]
    try:
        message = service.predict([{"requestId": b"1", "headers": headers, "parameters": parameters}])
    except Exception as error:  # an error ends the worker, and its front end responds with 500
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return {"status": 500, "type": None, "headers": {}, "body": ""}
    reader = MessageReader(message)
    code, _message, _request_id, media_type = (
        reader.read_number(),
        reader.read_data(),
        reader.read_data(),
        reader.read_data().decode(),
    )
    status, _phrase = reader.read_number(), reader.read_data()
    response_headers = {
        reader.read_data().decode().lower(): reader.read_data().decode() for _ in range(reader.read_number())
    }
    response_headers.pop("content-type", None)
    body = base64.b64encode(reader.read_data()).decode()
    return {
        "status": status if code == 200 else code,
        "type": media_type or None,
        "headers": response_headers,
        "body": body,
    }


def run_program(number: int, program: dict[str, Any], folder: Path) -> dict[str, Any]:
    code = folder / str(number) / "code"
    code.mkdir(parents=True)
    (code / f"program_{number}.py").write_text(program["code"])
    os.environ["SAGEMAKER_PROGRAM"] = f"program_{number}.py"
    sys.path.insert(0, str(code))
    importlib.invalidate_caches()
    handler = DefaultHandlerService()
    service = Service("model", str(code.parent), None, handler.handle, None, 1)
    try:
        handler.initialize(service.context)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}", "answers": []}
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
