"""Functions that replace AWS Lambda functions. They run on this machine.

A function is a command or a Python function. A command reads the event from its standard input, and writes its result
to its standard output. A Python function, such as `handlers.py:approve`, is called with the event and a context, as on
AWS Lambda.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

PYTHON_FUNCTION_PATTERN = re.compile(r"(?P<module>[\w./-]+):(?P<name>[A-Za-z_]\w*)")
TIMEOUT = 600.0
"""Time limit of a function in seconds, as for AWS's Lambda steps."""
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
"""Variables of the server that functions get. Functions do not get the user's credentials."""
MAX_OUTPUT_BYTES = 1 << 20
MAX_ERROR_CHARACTERS = 500
MAX_ERROR_BYTES = 1 << 14
"""Maximum number of bytes that are kept from the end of a function's error output."""
CHUNK_BYTES = 1 << 16
OUTPUT_GRACE_SECONDS = 5.0
"""After the end of a function, processes that it started may keep its output open. After this number of seconds, the
server stops reading the output."""

_CALLING_PROGRAM = """
import importlib, importlib.util, json, sys
sys.path.insert(0, "")
module, name, arn = sys.argv[1:]
if module.endswith(".py"):
    spec = importlib.util.spec_from_file_location("function", module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
else:
    loaded = importlib.import_module(module)
class Context:
    invoked_function_arn = arn
    function_name = arn.rpartition(":")[2]
output, sys.stdout = sys.stdout, sys.stderr
json.dump(getattr(loaded, name)(json.load(sys.stdin), Context()), output)
"""
"""The program that calls a Python function. The function's own output goes to standard error."""


class FunctionError(Exception):
    """A function failed or was stopped, or its result is not a JSON object."""


class FunctionRun:
    """One running function."""

    def __init__(self, command: str, arn: str, event: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        """Start a function.

        Args:
            command: the command, or the Python function.
            arn: the ARN or the name in the request.
            event: the input of the function.
            variables: environment variables, in addition to KEPT_VARIABLES.

        Raises:
            FunctionError: the command cannot be started.
        """
        self._stop_event = threading.Event()
        self._output, self._errors = bytearray(), bytearray()
        kept_variables = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        try:
            with tempfile.TemporaryFile() as event_file:
                event_file.write(json.dumps(event).encode())
                event_file.seek(0)
                self._process = subprocess.Popen(
                    make_arguments(command, arn),
                    bufsize=0,
                    stdin=event_file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**kept_variables, **variables},
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:  # shlex raises ValueError if it cannot split the command
            raise FunctionError(f"{command} cannot be started: {error}") from error

    def wait(self) -> dict[str, Any]:
        """Wait for the end of the function, and return its result; empty if it printed nothing or `null`.

        Raises:
            FunctionError: the function failed, ran too long or was stopped, or its result is not a JSON object.
        """
        readers = [threading.Thread(target=read, daemon=True) for read in (self._read_output, self._read_errors)]
        for reader in readers:
            reader.start()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired as error:
            self.stop()
            self._process.wait()
            raise FunctionError(f"the function ran longer than {TIMEOUT:g} s") from error
        for reader in readers:
            # a process that the function has started may still keep the output open
            reader.join(0 if self._stop_event.is_set() else OUTPUT_GRACE_SECONDS)
        if len(self._output) > MAX_OUTPUT_BYTES:
            raise FunctionError(f"the function printed more than {MAX_OUTPUT_BYTES} bytes to its standard output")
        if self._process.returncode != 0:
            reason = (
                "it was stopped"
                if self._stop_event.is_set()
                else _find_last_line(self._errors.decode(errors="replace"))
            )
            raise FunctionError(f"the function ended with exit code {self._process.returncode}: {reason}")
        return _parse_result(self._output.decode(errors="replace"))

    def _read_output(self) -> None:
        """Keep the output of the function. End a function that prints more than MAX_OUTPUT_BYTES."""
        for chunk in _read_chunks(self._process.stdout):
            self._output += chunk
            if len(self._output) > MAX_OUTPUT_BYTES:
                self.stop()
                return

    def _read_errors(self) -> None:
        for chunk in _read_chunks(self._process.stderr):
            self._errors += chunk
            del self._errors[:-MAX_ERROR_BYTES]

    def stop(self) -> None:
        """End all processes of the function's process group. Processes that left the group continue to run."""
        self._stop_event.set()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def make_arguments(command: str, arn: str) -> Sequence[str]:
    """Return the arguments of the process that runs a function."""
    function = PYTHON_FUNCTION_PATTERN.fullmatch(command)
    if function is None:
        return shlex.split(command)
    return [sys.executable, "-c", _CALLING_PROGRAM, function["module"], function["name"], arn]


def _read_chunks(stream: IO[bytes] | None) -> Iterator[bytes]:
    assert stream is not None  # noqa: S101  a pipe
    with stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _find_last_line(text: str) -> str:
    """Return the last line of a function's error output."""
    lines = text.strip().splitlines()
    return lines[-1][-MAX_ERROR_CHARACTERS:] if lines else "it printed no error"


def _parse_result(output: str) -> dict[str, Any]:
    try:
        result = json.loads(output or "null")
    except (ValueError, RecursionError) as error:
        raise FunctionError(f"the result is not JSON: {error}: {output[:100]!r}") from error
    if result is not None and not isinstance(result, dict):
        raise FunctionError(f"the result must be a JSON object, not {output[:100]}")
    return result or {}
