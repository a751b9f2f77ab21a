"""The stored records of alarms, and the evaluation of their current states."""

import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from microjobs_orchestrator.local.alarms.evaluation import ALARM, EXTRA_PERIODS, evaluate
from microjobs_orchestrator.local.metrics.metric_math import ValuesByTime
from microjobs_orchestrator.local.metrics.metric_queries import Query
from microjobs_orchestrator.local.metrics.metric_reader import MetricReader
from microjobs_orchestrator.local.metrics.metric_requests import Span
from microjobs_orchestrator.local.metrics.periods import align
from microjobs_orchestrator.local.metrics.store import MetricStore
from microjobs_orchestrator.local.state import Query as StateQuery
from microjobs_orchestrator.local.state import Record, State

ALARM_KIND = "alarm"
HELD_UNTIL_KEY = "HeldUntil"
"""Key of a time in the internal state. Until this time, the alarm keeps the state that SetAlarmState has set."""


def list_queries(alarm: Mapping[str, Any]) -> Mapping[str, Query]:
    """Return the queries of an alarm by id. Exactly one of the queries returns the metric that the alarm watches."""
    if "Metrics" in alarm:
        return {query["Id"]: query for query in alarm["Metrics"]}
    metric = {"Namespace": alarm["Namespace"], "MetricName": alarm["MetricName"]}
    stat = {
        "Metric": {**metric, "Dimensions": alarm.get("Dimensions", ())},
        "Period": alarm["Period"],
        "Stat": alarm.get("Statistic") or alarm["ExtendedStatistic"],
        **({"Unit": alarm["Unit"]} if "Unit" in alarm else {}),
    }
    return {"metric": {"Id": "metric", "MetricStat": stat}}


def list_result_ids(queries: Mapping[str, Query]) -> list[str]:
    """Return the ids of the queries with ReturnData."""
    return [name for name, query in queries.items() if query.get("ReturnData", True)]


def list_periods(queries: Mapping[str, Query]) -> list[int]:
    return [query["MetricStat"]["Period"] for query in queries.values() if "MetricStat" in query]


class Alarms:
    """The alarms of a server.

    Args:
        speed: the divisor of the periods in the alarms' descriptions.
    """

    def __init__(self, state: State, metrics: MetricStore, speed: int) -> None:
        self._state = state
        self._reader = MetricReader(metrics)
        self._speed = speed

    def list(self) -> Sequence[Record]:
        """Return all alarms, oldest first, in their current state."""
        return [self._update(record) for record in self._state.find(StateQuery(ALARM_KIND, descending=False, limit=-1))]

    def find_missing(self, names: Collection[str]) -> Sequence[str]:
        """Return those names that no alarm has."""
        return [name for name in names if self._state.get(ALARM_KIND, name) is None]

    def find_active(self, names: Collection[str]) -> Sequence[Record]:
        """Return those of the alarms with these names that are in the state ALARM."""
        records = [record for name in names if (record := self._state.get(ALARM_KIND, name)) is not None]
        return [record for record in map(self._update, records) if record.description["StateValue"] == ALARM]

    def shorten(self, period: int) -> int:
        """Return a period in seconds, divided by the speed."""
        return max(1, period // self._speed)

    def _update(self, record: Record) -> Record:
        """Evaluate an alarm, and return its record in its current state."""
        now, alarm = time.time(), record.description
        if now < record.internal.get(HELD_UNTIL_KEY, 0.0):
            return record
        evaluation = evaluate(alarm, self.read_values(alarm, now))
        if evaluation.state == alarm["StateValue"] and evaluation.reason == alarm["StateReason"]:
            return record
        return self._state.update(ALARM_KIND, record.name, make_state_members(alarm, *evaluation, now)) or record

    def read_values(self, alarm: Mapping[str, Any], now: float) -> ValuesByTime:
        """Return the values of an alarm's metric in the last periods that have ended.

        Raises:
            ServiceError: an expression is not valid.
        """
        queries = list_queries(alarm)
        period_count = alarm["EvaluationPeriods"] + EXTRA_PERIODS
        (result_id,) = list_result_ids(queries)
        return self._reader.compute_values(queries, partial(self._make_span, now, period_count))[result_id]

    def _make_span(self, now: float, period_count: int, period: int) -> Span:
        short_period = self.shorten(period)
        end = align(now, short_period)
        return Span(end - period_count * short_period, end, short_period)


def make_state_members(alarm: Mapping[str, Any], state: str, reason: str, now: float) -> Mapping[str, Any]:
    """Return the members of an alarm's description that contain its new state."""
    members = {"StateValue": state, "StateReason": reason, "StateReasonData": None, "StateUpdatedTimestamp": now}
    return members if state == alarm["StateValue"] else {**members, "StateTransitionedTimestamp": now}
