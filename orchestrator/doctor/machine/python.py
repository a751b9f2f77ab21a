"""The Python version."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from microjobs_orchestrator.doctor.check import Finding


@dataclass(frozen=True)
class Python:
    version: tuple[int, ...] = sys.version_info[:3]
    name: str = "the Python version"

    def run(self) -> Iterator[Finding]:
        text = ".".join(map(str, self.version))
        if self.version[:2] == (3, 11):
            yield Finding("ok", f"Python {text}")
        else:
            remedy = "uv python install 3.11 && make setup"
            yield Finding("problem", f"Python {text} is not supported: the jobs' locks are for Python 3.11", remedy)
