"""The graph of a definition's steps."""

from collections.abc import Iterator, Mapping

from microjobs_orchestrator.local.resources.pipelines.definition.expressions import (
    Reference,
    ReferenceSource,
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
    yield from find_references(step.receiver)


def find_dependencies(step: Step) -> tuple[Dependency, ...]:
    """Return the steps that must end before a step starts: the steps in its DependsOn, the steps whose properties it
    reads, and for a Cleanup step, the steps whose outputs it deletes.

    The result does not include the Condition or ForEach step that contains the step.
    """
    references = find_step_references(step)
    read_names = (reference.name for reference in references if reference.source is ReferenceSource.STEP)
    dependencies = dict.fromkeys(step.depends_on)
    names = {dependency.step for dependency in dependencies}
    return (
        *dependencies,
        *(Dependency(name) for name in dict.fromkeys((*read_names, *_find_cleaned_steps(step))) if name not in names),
    )


def _find_cleaned_steps(step: Step) -> Iterator[str]:
    """Yield the names of the steps whose outputs a Cleanup step deletes."""
    if step.type is StepType.CLEANUP:
        for source in step.arguments["Resources"]["S3"]:
            yield source["StepName"]


def make_graph(definition: Definition) -> Mapping[str, set[str]]:
    """Return, for each step, the names of the steps that come before it.

    Steps in a branch come after their Condition step. A ForEach step comes after the steps in its body, because it
    ends after them. The steps in the body come after the dependencies of the ForEach step.
    """
    graph: dict[str, set[str]] = {}
    for step in definition.steps:
        _add_to_graph(graph, step, set())
    return graph


def _add_to_graph(graph: dict[str, set[str]], step: Step, outer_names: set[str]) -> None:
    earlier_names = outer_names | {dependency.step for dependency in find_dependencies(step)}
    graph[step.name] = earlier_names | {inner.name for inner in step.body}
    for inner in step.nested_steps:
        _add_to_graph(graph, inner, earlier_names if step.body else {step.name})
