"""An image for the drills, in which the server or the engine fails while jobs run.

It starts and ends fast, and its lines and outputs are known in advance.
"""

import json
from contextlib import AbstractContextManager

from microjobs.contract import Layout
from tests.conftest import build_image_from_job
from tests.local.clients import SHELL_IMAGE

LAYOUT = Layout()

PROGRAM = f"""
import http.server, json, os, pathlib, signal, sys, time
stop_signals = []

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
    signal.signal(signal.SIGTERM, lambda number, _: stop_signals.append(number))
    for number in range(int(options["lines"])):
        if stop_signals:
            return
        print("line", number, flush=True)
        time.sleep(float(options["pause"]))
    for number in range(int(options["burst"])):  # a burst: lines without pauses
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


def build_drill_image() -> AbstractContextManager[str]:
    """Build an image whose `train` and `process` print lines and write weights, and whose `serve` answers at once."""
    return build_image_from_job(SHELL_IMAGE, f"ENTRYPOINT {json.dumps(['python3', '-c', PROGRAM])}")


def list_expected_lines(line_count: int, burst_line_count: int) -> list[str]:
    """Return all lines that a training or processing job prints."""
    numbered_lines = [f"line {number}" for number in range(line_count)]
    burst_lines = [f"burst {number}" for number in range(burst_line_count)]
    return [*numbered_lines, *burst_lines, f"val_loss: {line_count}"]
