"""The kinds of model packages and of their groups.

A versioned package has the name of its group, and a version. Each other package has its own name, and version 0.
"""

from microjobs_orchestrator.local.kinds import Kind

MODEL_PACKAGE_GROUP = Kind(
    arn_type="model-package-group",
    noun="ModelPackageGroup",
    title="model package group",
    verbs=("Describe", "List", "Delete"),
    summaries="ModelPackageGroupSummaryList",
    event_name=None,
)
MODEL_PACKAGE = Kind(
    arn_type="model-package",
    noun="ModelPackage",
    title="model package",
    verbs=("Describe", "List", "Delete"),
    summaries="ModelPackageSummaryList",
    list_all_members={"ModelPackageType": "Both"},
)
