"""Tests of List requests without a server."""

from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.kinds import Kind
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.resources.listing import list_resources
from microjobs_orchestrator.local.resources.processing.kinds import PROCESSING_JOB
from microjobs_orchestrator.local.resources.training.kinds import TRAINING_JOB
from microjobs_orchestrator.local.state import State

STATUSES = ("Completed", "Failed", "Completed", "Failed", "Completed")


@pytest.fixture
def state(tmp_path: Path) -> State:
    new_state = State(tmp_path / "state.db")
    for kind in (TRAINING_JOB, PROCESSING_JOB):
        for number, status in enumerate(STATUSES):
            new_state.add(
                kind.arn_type,
                f"job-{number}",
                f"arn:{kind.arn_type}/{number}",
                status,
                {},
                {kind.name_member: f"job-{number}"},
            )
    return new_state


def list_names(state: State, kind: Kind, **request: Any) -> tuple[list[str], str | None]:
    answer = list_resources(state, kind, {"SortBy": "Name", **request})
    return [item[kind.name_member] for item in answer[kind.summaries_member]], answer.get("NextToken")


def test_status_filters_the_page_of_training_jobs(state: State) -> None:
    """AWS documents that MaxResults jobs of any status are retrieved, and then filtered."""
    first_page, token = list_names(state, TRAINING_JOB, StatusEquals="Failed", MaxResults=3)
    second_page, last_token = list_names(state, TRAINING_JOB, StatusEquals="Failed", MaxResults=3, NextToken=token)
    assert (first_page, second_page, last_token) == (["job-1"], ["job-3"], None)
    state.close()


@pytest.mark.parametrize(
    ("kind", "request_members"), [(TRAINING_JOB, {}), (PROCESSING_JOB, {"MaxResults": 3}), (PROCESSING_JOB, {})]
)
def test_status_filters_all_jobs(state: State, kind: Kind, request_members: dict[str, int]) -> None:
    assert list_names(state, kind, StatusEquals="Failed", **request_members) == (["job-1", "job-3"], None)
    state.close()


def test_list_in_memory_has_pages() -> None:
    first_page, next_token = cut_page("abc", {"MaxResults": 2})
    second_page, last_token = cut_page("abc", {"MaxResults": 2, **next_token})
    assert (first_page, second_page, last_token) == ("ab", "c", {})


@pytest.mark.parametrize("limit", [0, -1])
def test_page_without_items_is_refused(limit: int) -> None:
    """A client that reads all pages would get the same token without end."""
    with pytest.raises(ServiceError, match=f"MaxResults {limit} must be at least 1"):
        cut_page("abc", {"MaxResults": limit})
