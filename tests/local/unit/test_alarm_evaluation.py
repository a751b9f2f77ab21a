"""States of alarms with missing values, as AWS's page about missing data lists them.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

from typing import Any

import pytest

from microjobs_orchestrator.local.alarms.evaluation import TREATMENTS, evaluate

RETAINED_STATE = "the current state"
ALARM: dict[str, Any] = {
    "EvaluationPeriods": 3,
    "Threshold": 1.0,
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
}


@pytest.mark.parametrize(
    ("text", "datapoints_to_alarm", "expected"),
    [
        # X stands for a value that breaches the threshold, and - for a missing value. The states are those for the
        # treatments missing, ignore, breaching and notBreaching.
        ("0 - X - X", 3, ("OK", "OK", "OK", "OK")),
        ("- - - - 0", 3, ("OK", "OK", "OK", "OK")),
        ("- - - - -", 3, ("INSUFFICIENT_DATA", RETAINED_STATE, "ALARM", "OK")),
        ("0 X X - X", 3, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("- - X - -", 3, ("ALARM", RETAINED_STATE, "ALARM", "OK")),
        ("0 - X - X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("0 0 X 0 X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("0 - X - -", 2, ("OK", "OK", "ALARM", "OK")),
        ("- - - - 0", 2, ("OK", "OK", "ALARM", "OK")),
        ("- - - X -", 2, ("ALARM", RETAINED_STATE, "ALARM", "OK")),
    ],
)
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_missing_values_are_treated_as_on_aws(
    text: str, datapoints_to_alarm: int, expected: tuple[str, ...], treatment: str
) -> None:
    values = {float(time): float(mark == "X") for time, mark in enumerate(text.split()) if mark != "-"}
    alarm = {
        **ALARM,
        "DatapointsToAlarm": datapoints_to_alarm,
        "TreatMissingData": treatment,
        "StateValue": RETAINED_STATE,
    }
    assert evaluate(alarm, values).state == expected[TREATMENTS.index(treatment)]


@pytest.mark.parametrize(
    ("name", "breaching_values"),
    [
        ("GreaterThanOrEqualToThreshold", [1.0, 2.0]),
        ("GreaterThanThreshold", [2.0]),
        ("LessThanThreshold", [0.0]),
        ("LessThanOrEqualToThreshold", [0.0, 1.0]),
    ],
)
def test_values_are_compared_with_the_threshold(name: str, breaching_values: list[float]) -> None:
    alarm = {**ALARM, "ComparisonOperator": name, "EvaluationPeriods": 1, "StateValue": "OK"}
    assert [value for value in (0.0, 1.0, 2.0) if evaluate(alarm, {0.0: value}).state == "ALARM"] == breaching_values
