#!/usr/bin/env python3
"""Server of an endpoint: returns y = slope * x + intercept for each x of a request, one number per row."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LINE = json.loads(Path("/opt/ml/model/line.json").read_text())


class Handler(BaseHTTPRequestHandler):
    """SageMaker sends `GET /ping` and `POST /invocations`."""

    def do_GET(self) -> None:
        self.respond(200, "")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            xs = [float(row) for row in body.split()]
        except ValueError as error:
            self.respond(400, str(error))
        else:
            self.respond(200, "\n".join(str(LINE["slope"] * x + LINE["intercept"]) for x in xs))

    def respond(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # otherwise, SIGKILL ends the container 30 seconds later
    ThreadingHTTPServer(("", 8080), Handler).serve_forever()
