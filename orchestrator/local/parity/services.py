"""Parity rows of CloudWatch Logs, SageMaker Runtime, STS, IAM and ECR."""

from microjobs_orchestrator.local.parity.common import ONE_ACCOUNT, TAGS, honoured
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Row, Rows

# --- CloudWatch Logs ---

UNMASK = NoEffect("logs are not masked")
GROUP = honoured("logGroupName", "logGroupIdentifier")
PAGE_OF_LOGS = honoured("nextToken", "limit")

LOGS: dict[str, Rows] = {
    "DescribeLogGroups": {
        **honoured("logGroupNamePrefix", "logGroupNamePattern", "logGroupIdentifiers"),
        **PAGE_OF_LOGS,
        "accountIdentifiers": ONE_ACCOUNT,
        "includeLinkedAccounts": ONE_ACCOUNT,
        "logGroupClass": Honoured(
            "all groups have this class", values=("STANDARD",), reason="no group has another class"
        ),
    },
    "DescribeLogStreams": {**GROUP, **honoured("logStreamNamePrefix", "orderBy", "descending"), **PAGE_OF_LOGS},
    "GetLogEvents": {
        **GROUP,
        **honoured("logStreamName", "startTime", "endTime", "startFromHead"),
        **PAGE_OF_LOGS,
        "unmask": UNMASK,
    },
    "FilterLogEvents": {
        **GROUP,
        **honoured("logStreamNames", "logStreamNamePrefix", "startTime", "endTime"),
        "filterPattern": Honoured('terms: `a "b c" -d`, `?a ?b`; patterns for JSON or fields are refused'),
        **PAGE_OF_LOGS,
        "startFromHead": Honoured(
            "oldest events first", values=(True,), reason="use GetLogEvents to read the end of a stream"
        ),
        "interleaved": NoEffect("events of all streams are always sorted by time, as on AWS since 2019"),
        "unmask": UNMASK,
    },
}

# --- SageMaker Runtime ---

FORWARDED = ("ContentType", "Accept", "CustomAttributes", "InferenceId")

RUNTIME: dict[str, Rows] = {
    "InvokeEndpoint": {
        "EndpointName": Honoured(),
        "Body": Honoured("at most 25 MB, as on AWS"),
        **honoured(*FORWARDED, "TargetVariant", "SessionId", "PrefixAwareId"),
        "TargetModel": Refused("multi-model endpoints are not supported: create one endpoint per model"),
        "TargetContainerHostname": Refused("models have one container: create one endpoint per container"),
        "InferenceComponentName": Refused("inference components are not supported: set the variant's ModelName"),
        "EnableExplanations": Refused("Clarify is not supported"),
    },
    "InvokeEndpointAsync": honoured(
        *("EndpointName", *FORWARDED, "InputLocation", "S3OutputPathExtension", "Filename"),
        *("RequestTTLSeconds", "InvocationTimeoutSeconds", "Body"),
    ),
}

# --- STS ---

SESSION: Rows = {
    "DurationSeconds": Honoured("lifetime of the credentials, which only this server accepts"),
    **dict.fromkeys(("SerialNumber", "TokenCode"), NoEffect("no second factor is required")),
    "MinimumSessionTokenSize": NoEffect("the content of a token determines its size"),
}

STS: dict[str, Rows] = {
    "GetCallerIdentity": {},
    "GetAccessKeyInfo": honoured("AccessKeyId"),
    "AssumeRole": {
        "RoleArn": Honoured("any role except a deleted one"),
        "RoleSessionName": Honoured(),
        "SourceIdentity": Honoured("returned in the response"),
        **SESSION,
        **dict.fromkeys(
            ("PolicyArns", "Policy", "Tags", "TransitiveTagKeys", "ExternalId", "ProvidedContexts"),
            NoEffect("permissions are not checked"),
        ),
    },
    "GetSessionToken": SESSION,
}

# --- IAM ---

ROLE = Honoured("each name is a role until it is deleted")
PAGE: dict[str, Row] = honoured("Marker", "MaxItems")
DOCUMENT = Honoured("stored and described; permissions are not checked")


def _role(*names: str, **own: Row) -> Rows:
    return {"RoleName": ROLE, **honoured(*names), **own}


IAM: dict[str, Rows] = {
    "GetRole": _role(),
    "ListRoles": {"PathPrefix": Honoured("only of roles that were created"), **PAGE},
    "CreateRole": _role(
        "Path",
        "Description",
        "MaxSessionDuration",
        AssumeRolePolicyDocument=DOCUMENT,
        PermissionsBoundary=Refused("permissions boundaries are not stored: remove it"),
        Tags=TAGS,
    ),
    "UpdateRole": _role("Description", "MaxSessionDuration"),
    "UpdateRoleDescription": _role("Description"),
    "UpdateAssumeRolePolicy": _role(PolicyDocument=DOCUMENT),
    "DeleteRole": _role(),
    "PutRolePolicy": _role("PolicyName", PolicyDocument=DOCUMENT),
    "GetRolePolicy": _role("PolicyName"),
    "DeleteRolePolicy": _role("PolicyName"),
    "ListRolePolicies": _role(**PAGE),
    "AttachRolePolicy": _role(PolicyArn=Honoured("any ARN: only policies of roles are stored")),
    "DetachRolePolicy": _role("PolicyArn"),
    "ListAttachedRolePolicies": _role("PathPrefix", **PAGE),
    "ListInstanceProfilesForRole": _role(**PAGE),
    "TagRole": _role(Tags=TAGS),
    "UntagRole": _role("TagKeys"),
    "ListRoleTags": _role(**PAGE),
    "SimulatePrincipalPolicy": {
        "ActionNames": Honoured("the result is `allowed` for each"),
        "ResourceArns": Honoured(),
        **dict.fromkeys(
            (
                *("PolicySourceArn", "PolicyInputList", "PermissionsBoundaryPolicyInputList", "PolicyExclusionList"),
                *("ResourcePolicy", "ResourceOwner", "CallerArn", "ContextEntries", "ResourceHandlingOption"),
            ),
            NoEffect("each action is allowed"),
        ),
        **PAGE,
    },
}

# --- ECR ---

REPOSITORY: dict[str, Row] = {
    "registryId": Honoured("the server's account"),
    "repositoryName": Honoured("a repository of the engine's images, or a created one"),
}
PAGED: dict[str, Row] = honoured("nextToken", "maxResults")
TAGGED = Members(
    {
        "tagStatus": Honoured("the engine's images without a name are in no repository"),
        "imageStatus": Honoured("all images are active", values=("ACTIVE",), reason="no image is archived"),
    }
)

ECR: dict[str, Rows] = {
    "GetAuthorizationToken": honoured("registryIds"),
    "DescribeRepositories": {"registryId": REPOSITORY["registryId"], "repositoryNames": Honoured(), **PAGED},
    "CreateRepository": {
        **REPOSITORY,
        "tags": TAGS,
        **dict.fromkeys(
            (
                *("imageTagMutability", "imageTagMutabilityExclusionFilters"),
                *("imageScanningConfiguration", "encryptionConfiguration"),
            ),
            NoEffect("the engine manages images"),
        ),
    },
    "DeleteRepository": {
        **REPOSITORY,
        "force": NoEffect("a repository with images of the engine is never deleted: use docker rmi"),
    },
    "DescribeImages": {
        **REPOSITORY,
        "imageIds": Members(honoured("imageDigest", "imageTag")),
        **PAGED,
        "filter": TAGGED,
    },
    "ListImages": {**REPOSITORY, **PAGED, "filter": TAGGED},
    "ListTagsForResource": honoured("resourceArn"),
    "TagResource": {"resourceArn": Honoured(), "tags": TAGS},
    "UntagResource": honoured("resourceArn", "tagKeys"),
    "GetRepositoryPolicy": REPOSITORY,
    "GetLifecyclePolicy": REPOSITORY,
}
