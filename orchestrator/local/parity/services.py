"""Parity rows of CloudWatch Logs, SageMaker Runtime, STS, IAM, ECR and SQS."""

from microjobs_orchestrator.local.parity.common import ONE_ACCOUNT, TAGS, make_honoured_rows
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoEffect, Refused, Row, Rows

# --- CloudWatch Logs ---

UNMASK = NoEffect("logs are not masked")
GROUP = make_honoured_rows("logGroupName", "logGroupIdentifier")
LOGS_PAGE = make_honoured_rows("nextToken", "limit")

LOGS: dict[str, Rows] = {
    "DescribeLogGroups": {
        **make_honoured_rows("logGroupNamePrefix", "logGroupNamePattern", "logGroupIdentifiers"),
        **LOGS_PAGE,
        "accountIdentifiers": ONE_ACCOUNT,
        "includeLinkedAccounts": ONE_ACCOUNT,
        "logGroupClass": Honoured(
            "all groups have this class", values=("STANDARD",), reason="no group has another class"
        ),
    },
    "DescribeLogStreams": {
        **GROUP,
        **make_honoured_rows("logStreamNamePrefix", "orderBy", "descending"),
        **LOGS_PAGE,
    },
    "GetLogEvents": {
        **GROUP,
        **make_honoured_rows("logStreamName", "startTime", "endTime", "startFromHead"),
        **LOGS_PAGE,
        "unmask": UNMASK,
    },
    "FilterLogEvents": {
        **GROUP,
        **make_honoured_rows("logStreamNames", "logStreamNamePrefix", "startTime", "endTime"),
        "filterPattern": Honoured('terms: `a "b c" -d`, `?a ?b`; patterns for JSON or fields are refused'),
        **LOGS_PAGE,
        "startFromHead": Honoured(
            "oldest events first", values=(True,), reason="use GetLogEvents to read the end of a stream"
        ),
        "interleaved": NoEffect("events of all streams are always sorted by time, as on AWS since 2019"),
        "unmask": UNMASK,
    },
}

# --- SageMaker Runtime ---

FORWARDED_MEMBERS = ("ContentType", "Accept", "CustomAttributes", "InferenceId")

TARGET_CONTAINER = Honoured("required by models with InferenceExecutionConfig Mode Direct; others refuse it")

RUNTIME: dict[str, Rows] = {
    "InvokeEndpoint": {
        "EndpointName": Honoured(),
        "Body": Honoured("at most 25 MB, as on AWS"),
        **make_honoured_rows(*FORWARDED_MEMBERS, "TargetVariant", "SessionId", "PrefixAwareId"),
        "TargetModel": Honoured("the path of a model below the prefix of a multi-model container"),
        "TargetContainerHostname": TARGET_CONTAINER,
        "InferenceComponentName": Honoured("required if the variants have no ModelName"),
        "EnableExplanations": Refused("Clarify is not supported"),
    },
    "InvokeEndpointWithResponseStream": {
        "EndpointName": Honoured(),
        "Body": Honoured("at most 25 MB, as on AWS"),
        **make_honoured_rows(*FORWARDED_MEMBERS, "TargetVariant", "SessionId", "PrefixAwareId"),
        "TargetContainerHostname": TARGET_CONTAINER,
        "InferenceComponentName": Honoured("required if the variants have no ModelName"),
    },
    "InvokeEndpointAsync": make_honoured_rows(
        *("EndpointName", *FORWARDED_MEMBERS, "InputLocation", "S3OutputPathExtension", "Filename"),
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
    "GetAccessKeyInfo": make_honoured_rows("AccessKeyId"),
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
IAM_PAGE: dict[str, Row] = make_honoured_rows("Marker", "MaxItems")
DOCUMENT = Honoured("stored and described; permissions are not checked")


def _make_role_rows(*names: str, **rows: Row) -> Rows:
    return {"RoleName": ROLE, **make_honoured_rows(*names), **rows}


IAM: dict[str, Rows] = {
    "GetRole": _make_role_rows(),
    "ListRoles": {"PathPrefix": Honoured("lists only roles that were created or changed"), **IAM_PAGE},
    "CreateRole": _make_role_rows(
        "Path",
        "Description",
        "MaxSessionDuration",
        AssumeRolePolicyDocument=DOCUMENT,
        PermissionsBoundary=Refused("permissions boundaries are not stored: remove it"),
        Tags=TAGS,
    ),
    "UpdateRole": _make_role_rows("Description", "MaxSessionDuration"),
    "UpdateRoleDescription": _make_role_rows("Description"),
    "UpdateAssumeRolePolicy": _make_role_rows(PolicyDocument=DOCUMENT),
    "DeleteRole": _make_role_rows(),
    "PutRolePolicy": _make_role_rows("PolicyName", PolicyDocument=DOCUMENT),
    "GetRolePolicy": _make_role_rows("PolicyName"),
    "DeleteRolePolicy": _make_role_rows("PolicyName"),
    "ListRolePolicies": _make_role_rows(**IAM_PAGE),
    "AttachRolePolicy": _make_role_rows(
        PolicyArn=Honoured("any ARN; the policy need not exist, because only policies of roles are stored")
    ),
    "DetachRolePolicy": _make_role_rows("PolicyArn"),
    "ListAttachedRolePolicies": _make_role_rows("PathPrefix", **IAM_PAGE),
    "ListInstanceProfilesForRole": _make_role_rows(**IAM_PAGE),
    "TagRole": _make_role_rows(Tags=TAGS),
    "UntagRole": _make_role_rows("TagKeys"),
    "ListRoleTags": _make_role_rows(**IAM_PAGE),
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
        **IAM_PAGE,
    },
}

# --- ECR ---

REPOSITORY: dict[str, Row] = {
    "registryId": Honoured("the server's account"),
    "repositoryName": Honoured("a repository of the engine's images, or a repository that CreateRepository created"),
}
ECR_PAGE: dict[str, Row] = make_honoured_rows("nextToken", "maxResults")
IMAGE_FILTER = Members(
    {
        "tagStatus": Honoured("the engine's images without a name are in no repository"),
        "imageStatus": Honoured("all images are active", values=("ACTIVE",), reason="no image is archived"),
    }
)

ECR: dict[str, Rows] = {
    "GetAuthorizationToken": make_honoured_rows("registryIds"),
    "DescribeRepositories": {"registryId": REPOSITORY["registryId"], "repositoryNames": Honoured(), **ECR_PAGE},
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
        "imageIds": Members(make_honoured_rows("imageDigest", "imageTag")),
        **ECR_PAGE,
        "filter": IMAGE_FILTER,
    },
    "ListImages": {**REPOSITORY, **ECR_PAGE, "filter": IMAGE_FILTER},
    "ListTagsForResource": make_honoured_rows("resourceArn"),
    "TagResource": {"resourceArn": Honoured(), "tags": TAGS},
    "UntagResource": make_honoured_rows("resourceArn", "tagKeys"),
    "GetRepositoryPolicy": REPOSITORY,
    "GetLifecyclePolicy": REPOSITORY,
}

# --- SQS ---

_URL = Honoured("the last part is the queue's name")
_ATTRIBUTES = Refused("messages have no attributes: put them into the body")
_NO_FIFO = Refused("queues are standard queues")

SQS: dict[str, Rows] = {
    "CreateQueue": {
        "QueueName": Honoured(),
        "Attributes": NoEffect("all queues have AWS's defaults"),
        "tags": NoEffect("queues have no tags"),
    },
    "GetQueueUrl": {"QueueName": Honoured(), "QueueOwnerAWSAccountId": ONE_ACCOUNT},
    "ListQueues": make_honoured_rows("QueueNamePrefix", "NextToken", "MaxResults"),
    "DeleteQueue": {"QueueUrl": _URL},
    "PurgeQueue": {"QueueUrl": _URL},
    "SendMessage": {
        "QueueUrl": _URL,
        "MessageBody": Honoured(),
        "DelaySeconds": Refused("messages arrive at once"),
        "MessageAttributes": _ATTRIBUTES,
        "MessageSystemAttributes": _ATTRIBUTES,
        "MessageDeduplicationId": _NO_FIFO,
        "MessageGroupId": _NO_FIFO,
    },
    "ReceiveMessage": {
        "QueueUrl": _URL,
        **make_honoured_rows("MaxNumberOfMessages", "VisibilityTimeout", "WaitTimeSeconds"),
        "AttributeNames": NoEffect("SentTimestamp and ApproximateReceiveCount are always returned"),
        "MessageSystemAttributeNames": NoEffect("SentTimestamp and ApproximateReceiveCount are always returned"),
        "MessageAttributeNames": NoEffect("messages have no attributes"),
        "ReceiveRequestAttemptId": _NO_FIFO,
    },
    "DeleteMessage": {"QueueUrl": _URL, "ReceiptHandle": Honoured()},
}
