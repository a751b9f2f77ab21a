"""Parity rows of CloudWatch's metrics and of SageMaker Metrics."""

from microjobs_orchestrator.local.identity import ACCOUNT
from microjobs_orchestrator.local.parity.common import ONE_ACCOUNT, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

DIMENSIONS = Members(make_honoured_rows("Name", "Value"))
METRIC: Rows = {**make_honoured_rows("Namespace", "MetricName"), "Dimensions": DIMENSIONS}
PERIOD = Honoured("1, 5, 10, 20, 30 or a multiple of 60 seconds")
STATISTICS = "SampleCount, Average, Sum, Minimum, Maximum, p0 to p100; others are refused"
OWN_ACCOUNT = Honoured("the server's account", values=(ACCOUNT,), reason="the server has one account")

QUERY: Rows = {
    **make_honoured_rows("Id", "Label", "ReturnData"),
    "MetricStat": Members(
        {
            "Metric": Members(METRIC),
            "Period": PERIOD,
            "Stat": Honoured(STATISTICS),
            "Unit": Honoured(),
        }
    ),
    "Expression": Honoured("ids, numbers, `+ - * /` and parentheses; functions and queries are refused"),
    "Period": Refused("only SQL queries have it: use MetricStat.Period"),
    "AccountId": OWN_ACCOUNT,
}
NO_ACTIONS = NoEffect("no actions are performed: read StateValue with DescribeAlarms")
NO_LOGS = Refused("only alarms on metrics are supported")

CLOUDWATCH: dict[str, Rows] = {
    "GetMetricData": {
        "MetricDataQueries": Members(QUERY),
        **make_honoured_rows("StartTime", "EndTime", "NextToken", "ScanBy", "MaxDatapoints"),
        "LabelOptions": NoEffect("labels contain no times"),
    },
    "GetMetricStatistics": {
        **METRIC,
        **make_honoured_rows("StartTime", "EndTime"),
        "Period": PERIOD,
        "Statistics": Honoured(),
        "ExtendedStatistics": Honoured("p0 to p100; others are refused"),
        "Unit": Honoured(),
    },
    "ListMetrics": {
        **METRIC,
        **make_honoured_rows("NextToken", "RecentlyActive"),
        "IncludeLinkedAccounts": ONE_ACCOUNT,
        "OwningAccount": OWN_ACCOUNT,
    },
    "PutMetricData": {
        "Namespace": Honoured(),
        "MetricData": Members(
            {
                **make_honoured_rows("MetricName", "Timestamp", "Value", "Values", "Counts", "Unit"),
                "Dimensions": DIMENSIONS,
                "StatisticValues": Members(make_honoured_rows("SampleCount", "Sum", "Minimum", "Maximum")),
                "StorageResolution": NoEffect("points have a resolution of one second, and of a minute after 3 hours"),
            }
        ),
        "EntityMetricData": Refused("entities are not supported: use MetricData"),
        "StrictEntityValidation": NoEffect("there are no entities"),
    },
    "PutMetricAlarm": {
        **make_honoured_rows("AlarmName", "AlarmDescription"),
        **METRIC,
        "Statistic": Honoured(),
        "ExtendedStatistic": Honoured("p0 to p100; others are refused"),
        "Period": Honoured("`deployment_speed` shortens it"),
        "Unit": Honoured(),
        "Metrics": Members({**QUERY, "Label": NoEffect("DescribeAlarms returns it")}),
        **make_honoured_rows("EvaluationPeriods", "DatapointsToAlarm", "Threshold", "TreatMissingData"),
        "Tags": TAGS,
        "ComparisonOperator": Honoured("those that need anomaly detection are refused"),
        **dict.fromkeys(("ActionsEnabled", "OKActions", "AlarmActions", "InsufficientDataActions"), NO_ACTIONS),
        "ActionConfiguration": NO_ACTIONS,
        "EvaluateLowSampleCountPercentile": NoEffect("percentiles of few samples are evaluated, too"),
        "ThresholdMetricId": Refused("anomaly detection is not supported: use Threshold"),
        "EvaluationInterval": NoEffect("an alarm is evaluated when its state is read, and each second of an update"),
        **dict.fromkeys(("EvaluationWindow", "WarmUpConfiguration", "EvaluationCriteria"), NO_LOGS),
    },
    "DescribeAlarms": {
        **make_honoured_rows("AlarmNames", "AlarmNamePrefix", "AlarmTypes", "StateValue", "MaxRecords", "NextToken"),
        **dict.fromkeys(("ChildrenOfAlarmName", "ParentsOfAlarmName"), Refused("there are no composite alarms")),
        "ActionPrefix": Refused("use AlarmNames or AlarmNamePrefix"),
    },
    "DeleteAlarms": make_honoured_rows("AlarmNames"),
    "SetAlarmState": {
        **make_honoured_rows("AlarmName", "StateReason", "StateReasonData"),
        "StateValue": Honoured("for one period of the alarm; then its metric decides again"),
    },
    "ListTagsForResource": {"ResourceARN": Honoured("an alarm")},
    "TagResource": {"ResourceARN": Honoured("an alarm"), "Tags": TAGS},
    "UntagResource": {"ResourceARN": Honoured("an alarm"), "TagKeys": Honoured()},
}

SAGEMAKER_METRICS: dict[str, Rows] = {
    "BatchPutMetrics": {
        "TrialComponentName": Honoured("a trial component, also the automatic one of a job: `<job>-aws-training-job`"),
        "MetricData": Members(make_honoured_rows("MetricName", "Timestamp", "Step", "Value")),
    },
    "BatchGetMetrics": {
        "MetricQueries": Members(
            {
                **make_honoured_rows("MetricName", "MetricStat", "Period", "XAxisType"),
                "ResourceArn": Honoured("a training job or a trial component"),
                **dict.fromkeys(
                    ("Start", "End"), Honoured("a value of the x axis: seconds since 1970 or a number of an iteration")
                ),
            }
        )
    },
}
