"""CloudWatch's operations for alarms on metrics.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/Welcome.html
"""

import time
from collections.abc import Mapping
from typing import Any

from microjobs_orchestrator.local.alarms.evaluation import COMPARISONS, INSUFFICIENT_DATA, TREATMENTS
from microjobs_orchestrator.local.alarms.records import (
    ALARM_KIND,
    HELD_UNTIL_KEY,
    Alarms,
    list_periods,
    list_queries,
    list_result_ids,
    make_state_members,
)
from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.metrics import metric_queries
from microjobs_orchestrator.local.metrics.metric_requests import check_period
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.state import Record, State

METRIC_MEMBERS = ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Dimensions", "Period", "Unit")
"""The members that describe one metric. An alarm has either these members or `Metrics`."""
HOUR, DAY, WEEK = 3600, 86_400, 7 * 86_400
ALARM_MEMBERS = (
    *("AlarmName", "AlarmDescription", "ActionsEnabled", "OKActions", "AlarmActions", "InsufficientDataActions"),
    *METRIC_MEMBERS,
    *("Metrics", "EvaluationPeriods", "DatapointsToAlarm", "Threshold", "ComparisonOperator", "TreatMissingData"),
    *("EvaluateLowSampleCountPercentile", "EvaluationInterval", "ActionConfiguration"),
)
"""The members of PutMetricAlarm that DescribeAlarms returns."""
STATE_MEMBERS = ("StateValue", "StateReason", "StateUpdatedTimestamp", "StateTransitionedTimestamp")
ALARM_TYPE = "MetricAlarm"

Request = Mapping[str, Any]
Response = Mapping[str, Any]


class AlarmOperations:
    """CloudWatch's operations for alarms."""

    def __init__(self, state: State, alarms: Alarms, region: str) -> None:
        self._state = state
        self._alarms = alarms
        self._region = region

    def list_handlers(self) -> Service:
        return {
            "PutMetricAlarm": self.put,
            "DescribeAlarms": self.describe,
            "DeleteAlarms": self.delete,
            "SetAlarmState": self.set_state,
            "ListTagsForResource": self.list_tags,
            "TagResource": self.add_tags,
            "UntagResource": self.delete_tags,
        }

    def put(self, request: Request) -> Response:
        """Add an alarm. If an alarm has the same name, replace it, and keep its state and its tags."""
        _check_alarm(request)
        name, now = request["AlarmName"], time.time()
        self._alarms.read_values(request, now)  # raises ServiceError if an expression is not valid
        arn = f"arn:aws:cloudwatch:{self._region}:{ACCOUNT}:alarm:{name}"
        description = {
            "AlarmArn": arn,
            "ActionsEnabled": True,
            **{member: request[member] for member in ALARM_MEMBERS if member in request},
            "AlarmConfigurationUpdatedTimestamp": now,
        }
        with self._state.transaction():
            state, tags = _make_first_state(now), request.get("Tags", ())
            if (old_record := self._state.get(ALARM_KIND, name)) is not None:
                state = {member: old_record.description[member] for member in STATE_MEMBERS}
                tags = self._state.tags(arn)
                self._state.delete(ALARM_KIND, name)
            self._state.add(
                ALARM_KIND, name, arn, status="", request={}, description={**description, **state}, tags=tags
            )
        return {}

    def describe(self, request: Request) -> Response:
        if ALARM_TYPE not in request.get("AlarmTypes", [ALARM_TYPE]):
            return {"MetricAlarms": [], "CompositeAlarms": []}
        descriptions = [record.description for record in self._alarms.list() if _matches(record, request)]
        page_request = {"MaxResults": request.get("MaxRecords", 50), "NextToken": request.get("NextToken")}
        page, token = cut_page(descriptions, page_request, code="InvalidNextToken")
        return {"MetricAlarms": page, "CompositeAlarms": [], **token}

    def delete(self, request: Request) -> Response:
        """Delete alarms; delete none if one of them does not exist."""
        names = request["AlarmNames"]
        with self._state.transaction():
            if missing_names := self._alarms.find_missing(names):
                raise _make_missing_error(", ".join(missing_names))
            for name in names:
                self._state.delete(ALARM_KIND, name)
        return {}

    def set_state(self, request: Request) -> Response:
        """Set the state of an alarm for one period. After the period, the metric of the alarm decides again."""
        record = self._state.get(ALARM_KIND, request["AlarmName"])
        if record is None:
            raise _make_missing_error(request["AlarmName"])
        now, period = time.time(), max(list_periods(list_queries(record.description)))
        changes = make_state_members(record.description, request["StateValue"], request["StateReason"], now)
        changes = {**changes, "StateReasonData": request.get("StateReasonData")}
        internal = {HELD_UNTIL_KEY: now + self._alarms.shorten(period)}
        self._state.update(ALARM_KIND, record.name, changes, internal=internal)
        return {}

    def list_tags(self, request: Request) -> Response:
        return {"Tags": self._state.tags(self._find_arn(request))}

    def add_tags(self, request: Request) -> Response:
        self._state.add_tags(self._find_arn(request), request["Tags"])
        return {}

    def delete_tags(self, request: Request) -> Response:
        self._state.delete_tags(self._find_arn(request), request["TagKeys"])
        return {}

    def _find_arn(self, request: Request) -> str:
        arn: str = request["ResourceARN"]
        record = self._state.get_by_arn(arn)
        if record is None or record.kind != ALARM_KIND:
            raise ServiceError("ResourceNotFoundException", f"There is no alarm {arn}: see DescribeAlarms.", 404)
        return arn


def _make_first_state(now: float) -> dict[str, Any]:
    reason = "The alarm is not evaluated yet."
    return dict(zip(STATE_MEMBERS, (INSUFFICIENT_DATA, reason, now, now), strict=True))


def _matches(record: Record, request: Request) -> bool:
    names, state = request.get("AlarmNames"), request.get("StateValue")
    return (
        (not names or record.name in names)
        and record.name.startswith(request.get("AlarmNamePrefix", ""))
        and state in (None, record.description["StateValue"])
    )


def _make_missing_error(names: str) -> ServiceError:
    return ServiceError("ResourceNotFound", f"There is no alarm {names}: see DescribeAlarms.", 404)


# --- checks ---


def _check_alarm(request: Request) -> None:
    """Raise ServiceError ValidationError for an alarm that is contradictory or incomplete."""
    required_members = ("ComparisonOperator", "EvaluationPeriods", "Threshold")
    if missing_members := [member for member in required_members if member not in request]:
        raise _make_error(f"PutMetricAlarm needs {', '.join(missing_members)}.")
    _check_values(request)
    _check_metric(request)
    queries = metric_queries.read_queries(list(list_queries(request).values()))
    list(metric_queries.sort_by_use(queries))
    if len(result_ids := list_result_ids(queries)) != 1:
        raise _make_error(f"{len(result_ids)} items of Metrics have ReturnData true; exactly one must have it.")
    _check_evaluation_time(request["EvaluationPeriods"], list_periods(queries))


def _check_values(request: Request) -> None:
    if request["ComparisonOperator"] not in COMPARISONS:
        message = f"ComparisonOperator {request['ComparisonOperator']} needs anomaly detection, which is not supported"
        raise _make_error(f"{message}: use {', '.join(COMPARISONS)}.")
    if (treatment := request.get("TreatMissingData", TREATMENTS[0])) not in TREATMENTS:
        raise _make_error(f"TreatMissingData {treatment!r:.100} must be one of {', '.join(TREATMENTS)}.")
    periods = request["EvaluationPeriods"]
    if (datapoints := request.get("DatapointsToAlarm", periods)) > periods:
        raise _make_error(f"DatapointsToAlarm {datapoints} must not be larger than EvaluationPeriods {periods}.")


def _check_metric(request: Request) -> None:
    """Check that an alarm has either one complete metric, or `Metrics`."""
    if "Metrics" in request:
        if metric_members := [member for member in METRIC_MEMBERS if member in request]:
            raise _make_error(f"An alarm with Metrics must not have {', '.join(metric_members)}.")
        return
    if missing_members := [member for member in ("MetricName", "Namespace", "Period") if member not in request]:
        raise _make_error(f"An alarm without Metrics needs {', '.join(missing_members)}.")
    if ("Statistic" in request) == ("ExtendedStatistic" in request):
        raise _make_error("An alarm must have either Statistic or ExtendedStatistic.")


def _check_evaluation_time(count: int, periods: list[int]) -> None:
    """Raise ServiceError if there is no period, or if `count` times one of the periods (in seconds) is too long.

    The limit is a week for periods of at least an hour, and a day for shorter periods.
    """
    if not periods:
        raise _make_error("Metrics has no MetricStat: add the metric that the expression uses.")
    for period in periods:
        check_period(period)
        limit = WEEK if period >= HOUR else DAY
        if count * period > limit:
            raise _make_error(f"EvaluationPeriods {count} times Period {period} must be at most {limit} seconds.")


def _make_error(message: str) -> ServiceError:
    return ServiceError("ValidationError", message)
