"""The workflows of `microjobs run`: each file in this folder is one workflow."""

import ast
import pkgutil
from collections.abc import Mapping
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microjobs_orchestrator.runs.backend import RequestContext
    from microjobs_orchestrator.runs.planned import PlannedRequest
    from microjobs_orchestrator.runs.workflow import Workflow


def list_names() -> list[str]:
    """Return the names of all workflows: `straight-line` for `straight_line.py`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def summarize(name: str) -> str:
    """Return the first line of a workflow's docstring, without importing the workflow."""
    spec = util.find_spec(_make_module_name(name))
    if spec is None or spec.origin is None:
        return ""
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


def load(name: str) -> "Workflow[Any]":
    """Import a workflow."""
    workflow: Workflow[Any] = import_module(_make_module_name(name)).WORKFLOW
    return workflow


def plan_requests(context: "RequestContext", options: Mapping[str, Any]) -> "list[PlannedRequest]":
    """Return the requests of all workflows. Workflows ignore the options that they do not have."""
    from microjobs_orchestrator.runs.planned import RunContext

    requests: list[PlannedRequest] = []
    for workflow in map(load, list_names()):
        own_options = {name: value for name, value in options.items() if name in workflow.option_names}
        requests += workflow.plan_requests(RunContext(context, "planned"), workflow.options_class(**own_options))
    return requests


def list_steps() -> list[str]:
    """Return the names of all workflows' steps, in the order of their requests."""
    from microjobs_orchestrator.runs.backend import RequestContext

    # The values of the context have no meaning, because only the steps of the requests are read.
    context = RequestContext(bucket="", role="", find_image_uri=str)
    return list(dict.fromkeys(planned.step for planned in plan_requests(context, {})))


def _make_module_name(name: str) -> str:
    return f"{__name__}.{name.replace('-', '_')}"
