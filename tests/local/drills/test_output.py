"""Tests that a job's log contains all output of its container, in order, and that long output needs little memory."""

import hashlib
from pathlib import Path

import pytest

from tests.conftest import make_image_name
from tests.local.clients import SHELL_IMAGE, LocalServer
from tests.local.drills.test_many_jobs import measure_usage

pytestmark = pytest.mark.engine

LINE_COUNT = 100_000


def run_program(server: LocalServer, program: str) -> str:
    """Run a training job that executes a Python program; return the job's name."""
    algorithm = {
        "TrainingImage": make_image_name(SHELL_IMAGE),
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "-c"],
        "ContainerArguments": ["import os; exec(os.environ['PROGRAM'])"],  # arguments must not contain newlines
    }
    job = server.train("", AlgorithmSpecification=algorithm, Environment={"PROGRAM": program})
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    return str(job["TrainingJobName"])


def read_log(server: LocalServer, job: str) -> list[bytes]:
    """Return the lines in the file of a job's only log stream."""
    (path,) = Path(server.home.logs, "aws/sagemaker/TrainingJobs", job).iterdir()
    return [line.partition(b" ")[2] for line in path.read_bytes().split(b"\n")[:-1]]


def test_no_line_of_a_fast_program_is_lost(server: LocalServer) -> None:
    job = run_program(server, f"print('\\n'.join(f'line {{n}}' for n in range({LINE_COUNT})))")
    assert read_log(server, job) == [b"line %d" % number for number in range(LINE_COUNT)]


def test_bytes_that_are_not_text_are_kept(server: LocalServer) -> None:
    job = run_program(server, "import os; os.write(1, bytes(set(range(256)) - {10}) + b'\\n\\n\\xff\\xfe')")
    assert read_log(server, job) == [bytes(sorted(set(range(256)) - {10})), b"", b"\xff\xfe"]
    (lines,) = server.read_logs("TrainingJobs", job).values()
    assert lines[-1] == "\ufffd\ufffd"


PRINT_LONG_LINES_PROGRAM = """
import hashlib, os, random, sys
for _ in range(4):
    line = random.randbytes(5 << 20).hex()
    print(line)
    sys.stdout.flush()
    os.write(2, hashlib.sha256(line.encode()).hexdigest().encode() + b"\\n")
"""


def test_lines_of_ten_megabytes_are_kept_without_much_memory(server: LocalServer) -> None:
    run_program(server, "print('first job')")  # for the first job, the server loads modules and creates threads
    memory_before = measure_usage(server.address.pid).memory_bytes
    job = run_program(server, PRINT_LONG_LINES_PROGRAM)
    growth = measure_usage(server.address.pid).memory_bytes - memory_before
    lines = read_log(server, job)
    digests = [line for line in lines if len(line) == 64]
    long_lines = b"".join(line for line in lines if len(line) != 64)
    length = 10 << 20
    parts = [long_lines[start : start + length] for start in range(0, len(long_lines), length)]
    assert [hashlib.sha256(part).hexdigest().encode() for part in parts] == digests
    assert growth < 16 << 20


def test_streams_do_not_mix_within_a_line(server: LocalServer) -> None:
    """The engine splits long lines into pieces, and pieces of the other output stream come between them."""
    program = "import os\nfor _ in range(200): os.write(1, b'o' * 20_000); os.write(2, b'e\\n'); os.write(1, b'\\n')"
    lines = read_log(server, run_program(server, program))
    assert (lines.count(b"o" * 20_000), lines.count(b"e"), len(lines)) == (200, 200, 400)


CLOSE_STDOUT_PROGRAM = (
    "import os, time; os.write(1, b'first\\nlast'); os.close(1); time.sleep(1); os.write(2, b'more\\nend')"
)


def test_output_continues_after_a_container_closes_its_stdout(server: LocalServer) -> None:
    """When the container has ended, the engine sends the incomplete last lines of both streams, in any order."""
    lines = read_log(server, run_program(server, CLOSE_STDOUT_PROGRAM))
    assert (lines[:2], sorted(lines[2:])) == ([b"first", b"more"], [b"end", b"last"])
