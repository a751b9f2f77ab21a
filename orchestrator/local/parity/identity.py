"""STS, IAM and ECR: identities, roles and repositories."""

from microjobs_orchestrator.local.parity.common import TAGS, honoured
from microjobs_orchestrator.local.parity.rows import Honoured, Members, NoMeaning, Refused, Row, Rows

# --- STS ---

NO_PERMISSION = NoMeaning("nothing asks for permission")
NO_FACTOR = NoMeaning("no second factor is asked for")
SESSION: Rows = {"DurationSeconds": Honoured("until then the credentials are valid, on this server alone")}
TOKEN_SIZE = NoMeaning("a token is as long as its content")

STS: dict[str, Rows] = {
    "GetCallerIdentity": {},
    "GetAccessKeyInfo": honoured("AccessKeyId"),
    "AssumeRole": {
        "RoleArn": Honoured("any role but one that was deleted"),
        "RoleSessionName": Honoured(),
        "PolicyArns": NO_PERMISSION,
        "Policy": NO_PERMISSION,
        **SESSION,
        "Tags": NO_PERMISSION,
        "TransitiveTagKeys": NO_PERMISSION,
        "ExternalId": NO_PERMISSION,
        "SerialNumber": NO_FACTOR,
        "TokenCode": NO_FACTOR,
        "SourceIdentity": Honoured("answered back"),
        "ProvidedContexts": NO_PERMISSION,
        "MinimumSessionTokenSize": TOKEN_SIZE,
    },
    "GetSessionToken": {
        **SESSION,
        "SerialNumber": NO_FACTOR,
        "TokenCode": NO_FACTOR,
        "MinimumSessionTokenSize": TOKEN_SIZE,
    },
}

# --- IAM ---

ROLE = Honoured("every name is a role, until it is deleted")
PAGE: dict[str, Row] = honoured("Marker", "MaxItems")
DOCUMENT = Honoured("stored, and described; nothing asks for permission")
SIMULATED = NoMeaning("every action is allowed")


def _role(*names: str, **own: Row) -> Rows:
    return {"RoleName": ROLE, **honoured(*names), **own}


IAM: dict[str, Rows] = {
    "GetRole": _role(),
    "ListRoles": {"PathPrefix": Honoured("of roles that were created"), **PAGE},
    "CreateRole": _role(
        "Path",
        "Description",
        "MaxSessionDuration",
        AssumeRolePolicyDocument=DOCUMENT,
        PermissionsBoundary=Refused("permissions boundaries are not stored: leave it out"),
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
    "AttachRolePolicy": _role(PolicyArn=Honoured("any ARN: policies by themselves are not stored")),
    "DetachRolePolicy": _role("PolicyArn"),
    "ListAttachedRolePolicies": _role("PathPrefix", **PAGE),
    "ListInstanceProfilesForRole": _role(**PAGE),
    "TagRole": _role(Tags=TAGS),
    "UntagRole": _role("TagKeys"),
    "ListRoleTags": _role(**PAGE),
    "SimulatePrincipalPolicy": {
        "PolicySourceArn": SIMULATED,
        "PolicyInputList": SIMULATED,
        "PermissionsBoundaryPolicyInputList": SIMULATED,
        "PolicyExclusionList": SIMULATED,
        "ActionNames": Honoured("each is answered as allowed"),
        "ResourceArns": Honoured(),
        "ResourcePolicy": SIMULATED,
        "ResourceOwner": SIMULATED,
        "CallerArn": SIMULATED,
        "ContextEntries": SIMULATED,
        "ResourceHandlingOption": SIMULATED,
        **PAGE,
    },
}

# --- ECR ---

REPOSITORY: dict[str, Row] = {
    "registryId": Honoured("the server's account"),
    "repositoryName": Honoured("of the engine's images, or created"),
}
PAGED: dict[str, Row] = honoured("nextToken", "maxResults")
TAGGED = Members(
    {
        "tagStatus": Honoured("images of the engine without a name are not in a repository"),
        "imageStatus": Honoured("every image is active", only=("ACTIVE",), why="no image is archived"),
    }
)
STORED = NoMeaning("images belong to the engine")

ECR: dict[str, Rows] = {
    "GetAuthorizationToken": honoured("registryIds"),
    "DescribeRepositories": {"registryId": REPOSITORY["registryId"], "repositoryNames": Honoured(), **PAGED},
    "CreateRepository": {
        **REPOSITORY,
        "tags": TAGS,
        "imageTagMutability": STORED,
        "imageTagMutabilityExclusionFilters": STORED,
        "imageScanningConfiguration": STORED,
        "encryptionConfiguration": STORED,
    },
    "DeleteRepository": {
        **REPOSITORY,
        "force": NoMeaning("a repository with images of the engine is not deleted in any case: use docker rmi"),
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
