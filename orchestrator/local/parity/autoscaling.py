"""Parity rows of Application Auto Scaling."""

from microjobs_orchestrator.local.parity.common import ROLE, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Rows

TARGET: Rows = {
    "ServiceNamespace": Honoured(values=("sagemaker",), reason="only resources of SageMaker can be scaled"),
    "ResourceId": Honoured(),
    "ScalableDimension": Honoured(
        "the instance count of a variant, or the copies of an inference component",
        values=("sagemaker:variant:DesiredInstanceCount", "sagemaker:inference-component:DesiredCopyCount"),
        reason="scale instances or copies",
    ),
}
PAGE = make_honoured_rows("MaxResults", "NextToken")
COOLDOWN = Honoured("by default, 300 seconds; `autoscaling_speed` shortens it")

CUSTOMIZED_METRIC: Rows = {
    **make_honoured_rows("Namespace", "MetricName"),
    "Dimensions": Members(make_honoured_rows("Name", "Value")),
    "Statistic": Honoured(),
    "Unit": Refused("the unit with which the metric was recorded is used"),
    "Metrics": Refused("use one metric"),
}
TARGET_TRACKING: Rows = {
    "TargetValue": Honoured(),
    "PredefinedMetricSpecification": Members(
        {
            "PredefinedMetricType": Honoured(
                "concurrent requests are computed from the latencies",
                values=(
                    "SageMakerVariantInvocationsPerInstance",
                    "SageMakerInferenceComponentInvocationsPerCopy",
                    "SageMakerVariantConcurrentRequestsPerModelHighResolution",
                    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution",
                ),
                reason="this metric does not exist for instances and copies",
            ),
            "ResourceLabel": Refused("only load balancers have labels"),
        }
    ),
    "CustomizedMetricSpecification": Members(CUSTOMIZED_METRIC),
    "ScaleOutCooldown": COOLDOWN,
    "ScaleInCooldown": COOLDOWN,
    "DisableScaleIn": Honoured(),
}

AUTO_SCALING: dict[str, Rows] = {
    "RegisterScalableTarget": {
        **TARGET,
        **make_honoured_rows("MinCapacity", "MaxCapacity"),
        "RoleARN": ROLE,
        "SuspendedState": Members(
            {
                **make_honoured_rows("DynamicScalingInSuspended", "DynamicScalingOutSuspended"),
                "ScheduledScalingSuspended": NoEffect("scheduled actions are not supported"),
            }
        ),
        "Tags": NoEffect("no operation lists tags of targets"),
    },
    "DescribeScalableTargets": {
        "ServiceNamespace": TARGET["ServiceNamespace"],
        "ResourceIds": Honoured(),
        "ScalableDimension": TARGET["ScalableDimension"],
        **PAGE,
    },
    "DeregisterScalableTarget": TARGET,
    "PutScalingPolicy": {
        **TARGET,
        "PolicyName": Honoured(),
        "PolicyType": Honoured(values=("TargetTrackingScaling",), reason="use target tracking"),
        "StepScalingPolicyConfiguration": Refused("use target tracking"),
        "TargetTrackingScalingPolicyConfiguration": Members(TARGET_TRACKING),
        "PredictiveScalingPolicyConfiguration": Refused("use target tracking"),
    },
    "DescribeScalingPolicies": {**TARGET, "PolicyNames": Honoured(), **PAGE},
    "DeleteScalingPolicy": {**TARGET, "PolicyName": Honoured()},
    "DescribeScalingActivities": {
        **TARGET,
        "IncludeNotScaledActivities": NoEffect("only changes of the capacity are stored"),
        **PAGE,
    },
}
