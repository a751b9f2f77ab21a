"""Parity rows of the model registry."""

from collections.abc import Mapping

from microjobs_orchestrator.local.parity.common import HUB, KMS, LIST_ROWS, MODEL_ACCESS, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Row, Rows

STORED_MEMBER = Honoured("stored and described")
STORAGE = Refused("models stay in your buckets: the server has no other storage for them")
VALIDATION = NoEffect("packages are not validated: create a transform job with a model of the package")
GROUP = Honoured("name or ARN")

DATA_ETAG = Honoured("the current ETag of the data; a package with another ETag is refused")
DATA_SOURCE: Rows = {
    **make_honoured_rows("S3Uri", "S3DataType", "CompressionType"),
    "ModelAccessConfig": MODEL_ACCESS,
    "HubAccessConfig": HUB,
    "ManifestS3Uri": Refused("store the files below one prefix"),
    "ETag": DATA_ETAG,
    "ManifestEtag": Refused("store the files below one prefix"),
}
ONE_FOLDER = Refused("put all files into one model archive")


def _make_stored_rows(*names: str, **members: Row) -> Rows:
    return {**dict.fromkeys(names, STORED_MEMBER), **members}


CONTAINER: Rows = {
    "ContainerHostname": Honoured("the container's name in models with several containers"),
    "Image": Honoured("an image of the engine; the configuration may define aliases"),
    "ImageDigest": NoEffect("the engine's image of this name is used"),
    "ModelDataUrl": Honoured("a `.tar.gz`, extracted before the container starts"),
    "ModelDataSource": Members({"S3DataSource": Members(DATA_SOURCE)}),
    "ProductId": Refused("AWS Marketplace is not available"),
    "Environment": Honoured("variables of each host; CreateModel may add and replace some"),
    "ModelInput": Members(_make_stored_rows("DataInputConfig")),
    **_make_stored_rows("Framework", "FrameworkVersion", "NearestModelName"),
    "AdditionalModelDataSources": ONE_FOLDER,
    "AdditionalS3DataSource": ONE_FOLDER,
    "ModelDataETag": DATA_ETAG,
    "IsCheckpoint": STORED_MEMBER,
    "BaseModel": Members(_make_stored_rows("HubContentName", "HubContentVersion", "RecipeName")),
}
SPECIFICATION: Rows = {
    "Containers": Members(CONTAINER),
    **_make_stored_rows(
        *("SupportedTransformInstanceTypes", "SupportedRealtimeInferenceInstanceTypes"),
        *("SupportedContentTypes", "SupportedResponseMIMETypes"),
    ),
}
ADDITIONAL_SPECIFICATION: Rows = {
    "Name": Honoured("CreateModel selects the specification by this name"),
    "Description": STORED_MEMBER,
    **SPECIFICATION,
}

FILE = Members(_make_stored_rows("ContentType", "ContentDigest", "S3Uri"))
QUALITY = Members({"Statistics": FILE, "Constraints": FILE})
METRICS: Rows = {
    "ModelQuality": QUALITY,
    "ModelDataQuality": QUALITY,
    "Bias": Members(dict.fromkeys(("Report", "PreTrainingReport", "PostTrainingReport"), FILE)),
    "Explainability": Members({"Report": FILE}),
}
BASELINES: Rows = {
    "Bias": Members(dict.fromkeys(("ConfigFile", "PreTrainingConstraints", "PostTrainingConstraints"), FILE)),
    "Explainability": Members({"Constraints": FILE, "ConfigFile": FILE}),
    "ModelQuality": QUALITY,
    "ModelDataQuality": QUALITY,
}

UPDATABLE_ROWS: Rows = {
    "ModelPackageRegistrationType": STORED_MEMBER,
    "InferenceSpecification": Members(SPECIFICATION),
    "ModelApprovalStatus": Honoured("CreateModel refuses a version that is not Approved"),
    "CustomerMetadataProperties": STORED_MEMBER,
    "SourceUri": Honoured("CreateModelPackage copies the specifications of the model or the package with this ARN"),
    "ModelCard": Members(_make_stored_rows("ModelCardContent", "ModelCardStatus")),
    "ModelLifeCycle": Members(_make_stored_rows("Stage", "StageStatus", "StageDescription")),
    "ClientToken": Honoured("a repeated request changes nothing"),
}
"""Rows of the members that CreateModelPackage and UpdateModelPackage have in common."""

CREATE: Rows = {
    **UPDATABLE_ROWS,
    "ModelPackageName": Honoured(),
    "ModelPackageGroupName": GROUP,
    "ModelPackageDescription": STORED_MEMBER,
    "ValidationSpecification": Refused("create a transform job with a model of the package"),
    "SourceAlgorithmSpecification": Refused("AWS's algorithms are not supported: set InferenceSpecification"),
    "CertifyForMarketplace": Refused("AWS Marketplace is not available"),
    "Tags": TAGS,
    "MetadataProperties": Members(_make_stored_rows("CommitId", "Repository", "GeneratedBy", "ProjectId")),
    "ModelMetrics": Members(METRICS),
    **_make_stored_rows("Domain", "Task", "SamplePayloadUrl"),
    "DriftCheckBaselines": Members(BASELINES),
    "AdditionalInferenceSpecifications": Members(ADDITIONAL_SPECIFICATION),
    "SkipModelValidation": VALIDATION,
    "SecurityConfig": KMS,
    "ManagedStorageType": STORAGE,
}

PACKAGE_NAME = Honoured("name, `group/version` or ARN")

ROWS: Mapping[str, Rows] = {
    "CreateModelPackageGroup": {
        "ModelPackageGroupName": Honoured(),
        "ModelPackageGroupDescription": STORED_MEMBER,
        "Tags": TAGS,
        "ManagedConfiguration": STORAGE,
    },
    "DescribeModelPackageGroup": {"ModelPackageGroupName": GROUP},
    "DeleteModelPackageGroup": {"ModelPackageGroupName": GROUP},
    "ListModelPackageGroups": {
        **LIST_ROWS,
        "CrossAccountFilterOption": Honoured(
            "the server has one account", values=("SameAccount",), reason="no account shares groups with this account"
        ),
    },
    "PutModelPackageGroupPolicy": {
        "ModelPackageGroupName": Honoured(),
        "ResourcePolicy": Honoured("stored and returned; permissions are not checked"),
    },
    "GetModelPackageGroupPolicy": make_honoured_rows("ModelPackageGroupName"),
    "DeleteModelPackageGroupPolicy": make_honoured_rows("ModelPackageGroupName"),
    "CreateModelPackage": CREATE,
    "UpdateModelPackage": {
        **UPDATABLE_ROWS,
        "ModelPackageArn": Honoured(),
        "ApprovalDescription": STORED_MEMBER,
        "CustomerMetadataPropertiesToRemove": Honoured(),
        "AdditionalInferenceSpecificationsToAdd": Members(ADDITIONAL_SPECIFICATION),
    },
    "DescribeModelPackage": {"ModelPackageName": PACKAGE_NAME, "IncludedData": Honoured()},
    "DeleteModelPackage": {"ModelPackageName": PACKAGE_NAME},
    "BatchDescribeModelPackage": make_honoured_rows("ModelPackageArnList"),
    "ListModelPackages": {
        **LIST_ROWS,
        "ModelApprovalStatus": Honoured(),
        "ModelPackageGroupName": Honoured("name or ARN; without ModelPackageType, lists the versions of the group"),
        "ModelPackageType": Honoured(),
    },
}
