"""A scope for tests of expressions, without an execution."""

from dataclasses import dataclass, field
from typing import Any

from microjobs_orchestrator.local.resources.pipelines.definition.expressions import ExpressionError, Path, select
from microjobs_orchestrator.local.resources.pipelines.definition.values import Scalar


@dataclass
class FakeScope:
    """A scope that reads the values of expressions from dictionaries."""

    parameters: dict[str, Scalar] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)
    files: dict[tuple[str, str], Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    item: Any = None

    def read_parameter(self, name: str) -> Scalar:
        if name not in self.parameters:
            raise ExpressionError(f"parameter {name} does not exist")
        return self.parameters[name]

    def read_variable(self, name: str) -> str:
        return f"the {name}"

    def read_property(self, step_name: str, path: Path) -> Any:
        return select(self.steps[step_name], path)

    def read_property_file(self, step_name: str, file_name: str) -> Any:
        return self.files[step_name, file_name]

    def read_json_object(self, uri: str) -> Any:
        return self.objects[uri]

    def read_loop_item(self, path: Path) -> Any:
        return select(self.item, path)

    def read_iteration_output(self, step_name: str, path: Path) -> Any:
        return select(self.steps[step_name], path)

    def read_experiment(self, name: str) -> str:
        return f"the {name}"
