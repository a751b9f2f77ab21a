"""A scope for expressions, with values in dictionaries."""

from dataclasses import dataclass, field
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError, Path, select
from microjobs_orchestrator.local.resources.pipelines.definition.values import Scalar


@dataclass
class FakeScope:
    """Values by the names in expressions."""

    parameters: dict[str, Scalar] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)
    files: dict[tuple[str, str], Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    item: Any = None

    def parameter(self, name: str) -> Scalar:
        if name not in self.parameters:
            raise ExpressionError(f"parameter {name} does not exist")
        return self.parameters[name]

    def variable(self, name: str) -> str:
        return f"the {name}"

    def property(self, step_name: str, path: Path) -> Any:
        return select(self.steps[step_name], path)

    def property_file(self, step_name: str, file_name: str) -> Any:
        return self.files[step_name, file_name]

    def json_object(self, uri: str) -> Any:
        return self.objects[uri]

    def loop_item(self, path: Path) -> Any:
        return select(self.item, path)

    def iteration_output(self, step_name: str, path: Path) -> Any:
        return select(self.steps[step_name], path)

    def experiment(self, name: str) -> str:
        return f"the {name}"
