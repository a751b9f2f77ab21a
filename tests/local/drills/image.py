"""An image for drills: it starts and ends fast, and its lines and outputs are known in advance."""

import json
from contextlib import AbstractContextManager

from microjobs.contract import Layout
from tests.conftest import image_from
from tests.local.clients import SHELL

LAYOUT = Layout()

PROGRAM = f"""
import http.server, json, os, pathlib, signal, sys, time
is_stopped = []

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if self.path == "/execution-parameters" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
    def log_message(self, *_):
        pass

def work(options, output):
    signal.signal(signal.SIGTERM, lambda *_: is_stopped.append(True))
    for number in range(int(options["lines"])):
        if is_stopped:
            return
        print("line", number, flush=True)
        time.sleep(float(options["pause"]))
    for number in range(int(options["burst"])):
        print("burst", number)
    print("val_loss: %s" % options["lines"], flush=True)
    pathlib.Path(output, "weights").write_text(options["lines"] * 1000)

if sys.argv[1] == "train":
    options = json.loads(pathlib.Path("{LAYOUT.input_config / "hyperparameters.json"}").read_text())
    work(options, "{LAYOUT.model}")
elif sys.argv[1] == "process":
    work(json.loads(sys.argv[2]), "{LAYOUT.processing("output")}")
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def drill_image() -> AbstractContextManager[str]:
    """Build an image whose `train` and `process` print lines and write weights, and whose `serve` answers at once."""
    return image_from(SHELL, f"ENTRYPOINT {json.dumps(['python3', '-c', PROGRAM])}")


def expected_lines(lines: int, burst: int) -> list[str]:
    """Return all lines that a training or processing job prints."""
    numbered = [f"line {number}" for number in range(lines)] + [f"burst {number}" for number in range(burst)]
    return [*numbered, f"val_loss: {lines}"]
