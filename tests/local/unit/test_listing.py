"""List requests, over the state alone."""

from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.services.listing import PROCESSING, TRAINING, Kind, list_resources, page
from microjobs_orchestrator.local.state import State

STATUSES = ("Completed", "Failed", "Completed", "Failed", "Completed")


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state.db")
    for kind in (TRAINING, PROCESSING):
        for number, status in enumerate(STATUSES):
            made.add(kind.kind, f"job-{number}", f"arn:{kind.kind}/{number}", status, {}, {kind.name: f"job-{number}"})
    return made


def listed(state: State, kind: Kind, **request: Any) -> tuple[list[str], str | None]:
    answer = list_resources(state, kind, {"SortBy": "Name", **request})
    return [item[kind.name] for item in answer[kind.listed]], answer.get("NextToken")


def test_status_filters_the_page_of_training_jobs(state: State) -> None:
    """As AWS documents: MaxResults jobs of any status are retrieved, and then filtered."""
    first, token = listed(state, TRAINING, StatusEquals="Failed", MaxResults=3)
    second, last = listed(state, TRAINING, StatusEquals="Failed", MaxResults=3, NextToken=token)
    assert (first, second, last) == (["job-1"], ["job-3"], None)
    state.close()


@pytest.mark.parametrize(
    ("kind", "request_members"), [(TRAINING, {}), (PROCESSING, {"MaxResults": 3}), (PROCESSING, {})]
)
def test_status_filters_all_jobs_otherwise(state: State, kind: Kind, request_members: dict[str, int]) -> None:
    assert listed(state, kind, StatusEquals="Failed", **request_members) == (["job-1", "job-3"], None)
    state.close()


def test_list_in_memory_has_pages() -> None:
    first, more = page("abc", {"MaxResults": 2})
    second, last = page("abc", {"MaxResults": 2, **more})
    assert (first, second, last) == ("ab", "c", {})
