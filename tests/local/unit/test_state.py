"""The store of resources and their tags."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.kinds import Kind, load_kinds
from microjobs_orchestrator.local.state import NameTakenError, Owner, Query, State, TransitionError

KIND = "training-job"
TUNING_JOB = Owner("hyper-parameter-tuning-job", "tuning")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    new_state = State(tmp_path / "state.db")
    yield new_state
    new_state.close()


def add(state: State, name: str, status: str = "InProgress", owner: Owner | None = None) -> None:
    state.add(KIND, name, f"arn:{name}", status, {"a": 1}, {"b": 2}, owner=owner)


def test_duplicate_name_raises(state: State) -> None:
    add(state, "a")
    with pytest.raises(NameTakenError):
        add(state, "a")


def test_transaction_stores_all_changes_or_none(state: State) -> None:
    def add_two() -> None:
        with state.transaction():
            add(state, "a")
            add(state, "taken")

    add(state, "taken")
    with pytest.raises(NameTakenError):
        add_two()
    assert state.get(KIND, "a") is None
    with state.transaction():
        add(state, "a")
        state.update(KIND, "a", {"c": 3})
    assert state.get(KIND, "a").description == {"b": 2, "c": 3}  # type: ignore[union-attr]


def test_versions_of_a_name_are_found_by_range(state: State) -> None:
    for name, version in (("a", 0), ("a", 1), ("a", 2), ("b", 2)):
        state.add(KIND, name, f"arn:{name}/{version}", "", {}, {}, version=version)
    records = state.find(Query(KIND, name="a", versions=(1, float("inf")), order_by="name", descending=False))
    assert [(record.name, record.version) for record in records] == [("a", 1), ("a", 2)]
    records = state.find(Query(KIND, versions=(2, 2), order_by="name", descending=False))
    assert [(record.name, record.version) for record in records] == [("a", 2), ("b", 2)]


def test_update_merges_and_changes_the_status(state: State) -> None:
    add(state, "a")
    state.update(KIND, "a", {"c": 3}, "Completed")
    record = state.get(KIND, "a")
    assert record is not None
    assert (record.status, record.description, record.request) == ("Completed", {"b": 2, "c": 3}, {"a": 1})


def test_update_can_require_a_status(state: State) -> None:
    add(state, "a", "Completed")
    assert state.update(KIND, "a", {}, "Stopping", only_if=("InProgress",)) is None
    assert state.get(KIND, "a").status == "Completed"  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [kind for kind in load_kinds() if kind.lifecycle], ids=lambda kind: kind.arn_type)
def test_impossible_transition_raises_and_changes_nothing(state: State, kind: Kind) -> None:
    assert kind.lifecycle is not None
    refused_count = 0
    for old_status in kind.lifecycle.statuses:
        for new_status in kind.lifecycle.statuses:
            state.add(kind.arn_type, "a", "arn", old_status, {}, {})
            is_allowed = kind.lifecycle.allows(old_status, new_status)
            if is_allowed:
                state.update(kind.arn_type, "a", {"b": 1}, new_status)
            else:
                refused_count += 1
                message = f"{kind.arn_type} a is {old_status} and cannot become {new_status}"
                with pytest.raises(TransitionError, match=message):
                    state.update(kind.arn_type, "a", {"b": 1}, new_status)
            record = state.get(kind.arn_type, "a")
            assert record is not None
            expected = (new_status, {"b": 1}) if is_allowed else (old_status, {})
            assert (record.status, record.description) == expected
            state.delete(kind.arn_type, "a")
    assert refused_count


@pytest.mark.parametrize(
    "kind",
    [kind for kind in load_kinds() if kind.lifecycle and not kind.lifecycle.runs_until_deleted],
    ids=lambda kind: kind.arn_type,
)
@pytest.mark.parametrize("old_status", ["Completed", "Failed", "Stopped"])
@pytest.mark.parametrize("new_status", ["InProgress", "Stopping", "Completed", "Failed", "Stopped"])
def test_ended_job_has_no_transitions(kind: Kind, old_status: str, new_status: str) -> None:
    assert kind.lifecycle is not None
    assert kind.lifecycle.allows(old_status, new_status) == (old_status == new_status)


def test_delete_ignores_recreated_resource(state: State) -> None:
    add(state, "a")
    old_record = state.get(KIND, "a")
    assert old_record is not None
    assert state.delete(KIND, "a", old_record.created)
    add(state, "a")
    assert not state.delete(KIND, "a", old_record.created)
    assert state.get(KIND, "a") is not None


def test_failed_change_is_rolled_back(state: State) -> None:
    with pytest.raises(KeyError):
        state.add(KIND, "a", "arn", "", {}, {}, tags=[{"Key": "no value"}])
    assert state.get(KIND, "a") is None


@pytest.mark.parametrize("order_by", ["name", "created", "status"])
@pytest.mark.parametrize("descending", [True, False])
def test_pages_have_each_resource_once_in_order(state: State, order_by: str, descending: bool) -> None:
    for number in range(7):
        add(state, f"job-{number}", "Completed" if number % 2 else "Failed")
    names: list[str] = []
    after: tuple[float | str, str, int] | None = None
    while True:
        page = state.find(Query(KIND, order_by=order_by, descending=descending, limit=2, after=after))
        if not page:
            break
        names += [record.name for record in page]
        after = (getattr(page[-1], order_by), page[-1].name, page[-1].version)
    assert sorted(names) == [f"job-{number}" for number in range(7)]
    keys = [(getattr(state.get(KIND, name), order_by), name) for name in names]
    assert keys == sorted(keys, reverse=descending)


def test_filters_combine(state: State) -> None:
    add(state, "x-1", "Completed", owner=TUNING_JOB)
    add(state, "x-2", "Failed", owner=TUNING_JOB)
    add(state, "y-1", "Completed", owner=TUNING_JOB)
    add(state, "x-3", "Completed")
    query = Query(KIND, name_contains="x", status="Completed", owner=TUNING_JOB)
    assert [record.name for record in state.find(query)] == ["x-1"]


def test_resources_are_found_by_the_kind_and_name_of_their_owner(state: State) -> None:
    add(state, "a", owner=TUNING_JOB)
    add(state, "b", owner=Owner("pipeline", TUNING_JOB.name))
    assert [record.name for record in state.find(Query(KIND, owner=TUNING_JOB))] == ["a"]


def test_versions_of_a_name_are_separate(state: State) -> None:
    for version in (1, 2, 3):
        state.add("package", "a", f"arn:a/{version}", "", {}, {"v": version}, version=version)
    state.update("package", "a", {"changed": True}, internal={"x": 1}, version=2)
    assert state.delete("package", "a", version=1)
    (first,) = state.find(Query("package", order_by="name", descending=False, limit=1))
    other_records = state.find(Query("package", order_by="name", descending=False, after=("a", "a", first.version)))
    assert [(record.version, record.description) for record in (first, *other_records)] == [
        (2, {"v": 2, "changed": True}),
        (3, {"v": 3}),
    ]
    record = state.get_by_arn("arn:a/2")
    assert record is not None
    assert (record.version, record.internal) == (2, {"x": 1})
    assert state.get("package", "a", 1) is None


def test_sql_wildcards_match_themselves(state: State) -> None:
    add(state, "abc")
    assert state.find(Query(KIND, name_contains="%")) == []


def test_delete_removes_tags(state: State) -> None:
    state.add(KIND, "a", "arn:a", "", {}, {}, tags=[{"Key": "k", "Value": "v"}])
    assert state.delete(KIND, "a")
    assert (state.tags("arn:a"), state.get_by_arn("arn:a"), state.delete(KIND, "a")) == ([], None, False)


def test_reopened_state_has_all_resources(tmp_path: Path) -> None:
    killed_state = State(tmp_path / "state.db")
    add(killed_state, "a")
    new_state = State(tmp_path / "state.db")  # the killed server has not closed its state
    assert new_state.get(KIND, "a") is not None
    killed_state.close()
    new_state.close()


def test_reserve_of_a_killed_server_is_removed(tmp_path: Path) -> None:
    """A state creates and deletes the table `reserve` when it is opened, so that the state's file has free pages."""
    path = tmp_path / "state.db"
    State(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE reserve (content BLOB)")
    State(path).close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master WHERE name = 'reserve'").fetchall() == []


@pytest.mark.parametrize("order_by", ["created", "modified", "name", "status"])
def test_lists_are_sorted_with_each_filter(tmp_path: Path, order_by: str) -> None:
    state = State(tmp_path / "state.db")
    for number in range(30):
        state.add("job", f"job-{number % 7}-{number}", f"arn-{number}", str(number % 3), {}, {}, owner=TUNING_JOB)
    filters: list[dict[str, Any]] = [{}, {"status": "1"}, {"owner": TUNING_JOB}, {"name_contains": "-1"}]
    for members in filters:
        records = state.find(Query("job", order_by=order_by, limit=1000, **members))
        keys = [(getattr(record, order_by), record.name) for record in records]
        assert keys == sorted(keys, reverse=True)
    state.close()


def set_column(state_path: Path, column: str, value: object) -> None:
    with closing(sqlite3.connect(state_path)) as database, database:
        database.execute(f"UPDATE resources SET {column} = ? WHERE name = 'bad'", (value,))  # noqa: S608


METRIC = '{"MetricName": "loss", "Value": %s, "Timestamp": 1.0}'


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_invalid_number_that_an_older_server_stored_is_removed(tmp_path: Path, state: State, value: str) -> None:
    add(state, "bad", "Completed")
    description = f'{{"FinalMetricDataList": [{METRIC % value}, {METRIC % 0.5}], "Other": {value}, "b": "\\ud83d"}}'
    set_column(tmp_path / "state.db", "description", description)
    record = state.get(KIND, "bad")
    assert record is not None
    valid_metric = {"MetricName": "loss", "Value": 0.5, "Timestamp": 1.0}
    assert record.description == {"FinalMetricDataList": [valid_metric], "b": "\\ud83d"}


def test_value_without_json_form_is_removed(tmp_path: Path, state: State) -> None:
    add(state, "a")
    state.update(KIND, "a", {"c": float("nan"), "d": "caf\udce9", "e": [1.0, float("inf")]})
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        ((text,),) = database.execute("SELECT description FROM resources").fetchall()
    assert text == '{"b": 2, "d": "caf\\\\xe9", "e": [1.0]}'


BROKEN_VALUES = {
    "invalid JSON": ("description", '{"a": '),
    "array": ("description", "[]"),
    "deep nesting": ("request", "[" * 100_000),
    "bytes": ("request", b"\xff\xfe\x00"),
    "empty bytes": ("description", b""),
    "text for a time": ("created", "yesterday"),
    "bytes for an ARN": ("arn", b"\xff"),
    "time before 1970": ("created", -1e300),
    "infinite time": ("modified", float("inf")),
}


@pytest.mark.parametrize(("column", "value"), BROKEN_VALUES.values(), ids=BROKEN_VALUES.keys())
def test_broken_row_does_not_hide_other_rows(tmp_path: Path, state: State, column: str, value: object) -> None:
    for name in ("a", "bad", "z"):
        add(state, name)
    set_column(tmp_path / "state.db", column, value)
    assert [record.name for record in state.find(Query(KIND, descending=False))] == ["a", "z"]
    assert [record.name for record in state.find_in_statuses(KIND, ["InProgress"])] == ["a", "z"]
    assert state.get(KIND, "bad") is None
    add(state, "bad")  # the name can be used again
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        assert database.execute("SELECT name FROM broken").fetchall() == [("bad",)]


@pytest.mark.parametrize("column", ["name", "arn", "status", "request", "description"])
def test_row_with_damaged_text_does_not_hide_other_rows(tmp_path: Path, state: State, column: str) -> None:
    for name in ("a", "bad", "z"):
        add(state, name)
    with closing(sqlite3.connect(tmp_path / "state.db")) as database, database:
        database.execute(f"UPDATE resources SET {column} = CAST(x'622dff' AS TEXT) WHERE name = 'bad'")  # noqa: S608
    assert [record.name for record in state.find(Query(KIND, descending=False))] == ["a", "z"]
    assert [record.name for record in state.find_in_statuses(KIND, ["InProgress"])] == ["a", "z"]
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        assert database.execute("SELECT count(*) FROM broken").fetchall() == [(1,)]


def test_owner_can_be_set_later(state: State) -> None:
    add(state, "a")
    state.set_owner(KIND, "a", TUNING_JOB)
    assert [record.name for record in state.find(Query(KIND, owner=TUNING_JOB))] == ["a"]
