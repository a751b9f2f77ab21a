"""The page about pipelines states the treatment of each type of step."""

from microjobs_orchestrator.local.resources.pipelines.definition.step_types import STEP_TYPE_FACTS
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "using" / "pipelines.md"


def test_page_lists_all_types_of_steps() -> None:
    lines = PAGE.read_text().splitlines()
    begin = lines.index("| step types | treatment |") + 2
    rows = [line.split("|") for line in lines[begin : lines.index("", begin)]]
    is_refused = {name: "refused" in row[2] for row in rows for name in row[1].strip().split(", ")}
    assert is_refused == {str(step_type): bool(facts.alternative) for step_type, facts in STEP_TYPE_FACTS.items()}
