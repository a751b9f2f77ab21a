"""Runs programs in forks of a process that has imported a client's libraries, because the imports take seconds.

Usage: program_server.py MODULE... Each line of the standard input is a JSON object with the arguments of
`become_program`. After each program, the server writes a line with the program's exit code to the standard output.
"""

import contextlib
import importlib
import json
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def check_schemas_once() -> None:
    """Check each JSON schema once. The SDK checks a constant schema in each call: up to 80 % of a program's time."""
    try:
        from jsonschema import Draft202012Validator
    except ImportError:  # the client's environment has no jsonschema
        return
    check_schema = Draft202012Validator.check_schema
    checked_schemas: dict[int, object] = {}  # the dictionary keeps the schemas, so that their ids stay unique

    def check_once(schema: object) -> None:
        if id(schema) not in checked_schemas:
            check_schema(schema)
            checked_schemas[id(schema)] = schema

    Draft202012Validator.check_schema = staticmethod(check_once)


def become_program(
    folder: str, environment: Mapping[str, str], command: Sequence[str], output: str, errors: str
) -> None:
    """Make this process look like a process that has just started a program. The program's output goes to two files."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, output, flags), (2, errors, flags)):
        file = os.open(path, mode, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[:] = command
    sys.path[0] = str(Path(command[0]).parent)


def main() -> None:
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some libraries print while they are imported
    for name in sys.argv[1:]:
        importlib.import_module(name)
    check_schemas_once()
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            if (pid := os.fork()) == 0:
                results.close()
                sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115  # the old object may have buffered later requests
                become_program(**json.loads(line))
                runpy.run_path(sys.argv[0], run_name="__main__")
                return
            _, status = os.waitpid(pid, 0)
            print(os.waitstatus_to_exitcode(status), file=results, flush=True)


if __name__ == "__main__":
    main()
