"""Whatever a container says, and however much at once, is in its log: every byte, in order, in little memory."""

import hashlib
from pathlib import Path

import pytest

from tests.conftest import image_name
from tests.local.clients import SHELL, LocalServer
from tests.local.drills.test_many_jobs import size

pytestmark = pytest.mark.engine

LINES = 100_000


def python(local: LocalServer, program: str) -> str:
    """Run a training job that is a program; its name."""
    algorithm = {
        "TrainingImage": image_name(SHELL),
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "-c"],
        "ContainerArguments": ["import os; exec(os.environ['PROGRAM'])"],  # an argument has no newlines
    }
    job = local.train("", AlgorithmSpecification=algorithm, Environment={"PROGRAM": program})
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    return str(job["TrainingJobName"])


def output(local: LocalServer, job: str) -> list[bytes]:
    """The lines of the log's file."""
    (path,) = Path(local.home.logs, "aws/sagemaker/TrainingJobs", job).iterdir()
    return [line.partition(b" ")[2] for line in path.read_bytes().split(b"\n")[:-1]]


def test_no_line_of_hundreds_per_millisecond_is_lost(local: LocalServer) -> None:
    job = python(local, f"print('\\n'.join(f'line {{n}}' for n in range({LINES})))")
    assert output(local, job) == [b"line %d" % number for number in range(LINES)]


def test_bytes_that_are_no_text_are_kept(local: LocalServer) -> None:
    job = python(local, "import os; os.write(1, bytes(set(range(256)) - {10}) + b'\\n\\n\\xff\\xfe')")
    assert output(local, job) == [bytes(sorted(set(range(256)) - {10})), b"", b"\xff\xfe"]
    (said,) = local.output("TrainingJobs", job).values()
    assert said[-1] == "\ufffd\ufffd"


LONG = """
import hashlib, os, random, sys
for _ in range(4):
    line = random.randbytes(5 << 20).hex()
    print(line)
    sys.stdout.flush()
    os.write(2, hashlib.sha256(line.encode()).hexdigest().encode() + b"\\n")
"""


def test_lines_of_ten_megabytes_are_kept_in_flat_memory(local: LocalServer) -> None:
    python(local, "print('what a server loads for its first job')")
    before = size(local.address.pid).memory
    job = python(local, LONG)
    grown = size(local.address.pid).memory - before
    lines = output(local, job)
    digests = [line for line in lines if len(line) == 64]
    whole = b"".join(line for line in lines if len(line) != 64)
    length = 10 << 20
    parts = [whole[start : start + length] for start in range(0, len(whole), length)]
    assert [hashlib.sha256(part).hexdigest().encode() for part in parts] == digests
    assert grown < 16 << 20


def test_streams_do_not_mix_within_a_line(local: LocalServer) -> None:
    """The engine gives long lines in pieces; those of the other stream come between them."""
    program = "import os\nfor _ in range(200): os.write(1, b'o' * 20_000); os.write(2, b'e\\n'); os.write(1, b'\\n')"
    lines = output(local, python(local, program))
    assert (lines.count(b"o" * 20_000), lines.count(b"e"), len(lines)) == (200, 200, 400)


CLOSES = "import os, time; os.write(1, b'first\\nlast'); os.close(1); time.sleep(1); os.write(2, b'heard\\non')"


def test_container_that_closes_its_stdout_is_heard_on(local: LocalServer) -> None:
    """What has no line end the engine gives when the container has ended, and the streams in either order."""
    first, heard, *rest = output(local, python(local, CLOSES))
    assert (first, heard, sorted(rest)) == (b"first", b"heard", [b"last", b"on"])
