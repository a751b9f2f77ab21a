"""The graph of a definition's steps."""

from collections.abc import Iterator, Mapping

from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    Reference,
    Source,
    find_references,
)
from microjobs_orchestrator.local.resources.pipelines.definition.values import (
    Definition,
    Dependency,
    Step,
    StepType,
)


def find_step_references(step: Step) -> Iterator[Reference]:
    """Yield the references in a step's expressions, without those in the steps that it contains."""
    yield from find_references(dict(step.arguments))
    yield from find_references(step.target)


def find_dependencies(step: Step) -> tuple[Dependency, ...]:
    """Return the steps that must end before a step starts: those of DependsOn, and those whose properties it reads.

    The step that contains this step is not one of them.
    """
    read = (reference.name for reference in find_step_references(step) if reference.source is Source.STEP)
    listed = dict.fromkeys(step.depends_on)
    names = {dependency.step for dependency in listed}
    return (*listed, *(Dependency(name) for name in dict.fromkeys((*read, *_find_sources(step))) if name not in names))


def _find_sources(step: Step) -> Iterator[str]:
    """Yield the steps whose outputs a Cleanup step deletes."""
    if step.type is StepType.CLEANUP:
        for source in step.arguments["Resources"]["S3"]:
            yield source["StepName"]


def make_graph(definition: Definition) -> Mapping[str, set[str]]:
    """Return, for each step, the steps that come before it.

    Steps in a branch come after their Condition step. A ForEach step ends after the steps in its body. These
    also wait for the dependencies of the ForEach step.
    """
    graph: dict[str, set[str]] = {}
    for step in definition.steps:
        _add_to_graph(graph, step, set())
    return graph


def _add_to_graph(graph: dict[str, set[str]], step: Step, outer: set[str]) -> None:
    before = outer | {dependency.step for dependency in find_dependencies(step)}
    graph[step.name] = before | {inner.name for inner in step.body}
    for inner in step.contained:
        _add_to_graph(graph, inner, before if step.body else {step.name})
