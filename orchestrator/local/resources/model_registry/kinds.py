"""The kinds of model packages and of their groups.

A versioned package has the name of its group, and a version. Each other package has its own name, and version 0.
"""

from microjobs_orchestrator.local.kinds import Kind

MODEL_PACKAGE_GROUP = Kind(
    "model-package-group",
    "ModelPackageGroup",
    "model package group",
    verbs=("Describe", "List", "Delete"),
    summaries="ModelPackageGroupSummaryList",
    event_name=None,
)
MODEL_PACKAGE = Kind(
    "model-package",
    "ModelPackage",
    "model package",
    verbs=("Describe", "List", "Delete"),
    summaries="ModelPackageSummaryList",
    list_all={"ModelPackageType": "Both"},
)
