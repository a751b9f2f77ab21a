"""The process runtime: whether jobs can run in virtual environments."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from microjobs_orchestrator.doctor.check import Finding


@dataclass(frozen=True)
class ProcessRuntime:
    required: bool
    """Whether jobs have no other runtime."""
    find_spec: Callable[[str], object] = importlib.util.find_spec
    name: str = "the process runtime"

    def run(self) -> Iterator[Finding]:
        missing = [module for module in ("venv", "ensurepip") if self.find_spec(module) is None]
        if shutil.which("uv") is not None and "ensurepip" in missing:
            missing.remove("ensurepip")  # uv installs packages without pip
        if missing:
            message = f"this Python has no {' and no '.join(missing)}: jobs cannot run as processes"
            remedy = "`apt install python3-venv`, or install uv: https://docs.astral.sh/uv/"
            yield Finding("problem" if self.required else "note", message, remedy)
        else:
            yield Finding("ok", "jobs can run as processes" if self.required else "jobs can also run as processes")
