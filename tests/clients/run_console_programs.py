"""Runs programs that the console generates. Usage: run_console_programs.py FILE, with a JSON list of programs."""

import json
import sys
from pathlib import Path
from unittest.mock import patch

programs = json.loads(Path(sys.argv[1]).read_text())
# Version 2 of the SDK validates its settings for each value that it reads. Each validation takes 0.1 s of CPU time, so
# this program switches it off.
with patch("jsonschema.validate"):
    for text in programs:
        exec(compile(text, "program", "exec"), {})  # noqa: S102  the subject of the test
