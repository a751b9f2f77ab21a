"""The workflows, one file per workflow: each file that is put here is a workflow of `microjobs run`."""

import ast
import pkgutil
from collections.abc import Iterator
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microjobs_orchestrator.runs.workflow import Workflow


def names() -> list[str]:
    """Return the names of all workflows: `straight-line` for `straight_line.py`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def summarize(name: str) -> str:
    """Return the first line of a workflow's docstring, without importing the workflow."""
    spec = util.find_spec(_module(name))
    if spec is None or spec.origin is None:
        return ""
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


def load(name: str) -> "Workflow[Any]":
    """Import a workflow."""
    workflow: Workflow[Any] = import_module(_module(name)).WORKFLOW
    return workflow


def load_all() -> "Iterator[Workflow[Any]]":
    return map(load, names())


def _module(name: str) -> str:
    return f"{__name__}.{name.replace('-', '_')}"
