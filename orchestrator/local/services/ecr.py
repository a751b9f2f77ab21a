"""ECR: repositories and images. The images are the engine's. Repositories are those of the images, and created ones.

The token for a registry's login has no effect: the engine of this machine has the images, and its own logins.
"""

import base64
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT, format_registry
from microjobs_orchestrator.local.runtimes.base import Image
from microjobs_orchestrator.local.services import Service
from microjobs_orchestrator.local.services.pages import cut
from microjobs_orchestrator.local.state import NameTakenError, Query, State

KIND = "ecr-repository"
TOKEN_LIFETIME = 12 * 60 * 60
PAGE = 100
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

Request = Mapping[str, Any]
Answer = Mapping[str, Any]


class Ecr:
    """The operations. Created repositories are in the server's state."""

    def __init__(self, state: State, region: str, images: Callable[[], Sequence[Image]]) -> None:
        self._state = state
        self._region = region
        self._images = images

    def operations(self) -> Service:
        return {
            "GetAuthorizationToken": self._get_token,
            "DescribeRepositories": self._describe_repositories,
            "CreateRepository": self._create_repository,
            "DeleteRepository": self._delete_repository,
            "DescribeImages": self._describe_images,
            "ListImages": self._list_images,
            "ListTagsForResource": self._list_tags,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "GetRepositoryPolicy": self._no_policy("RepositoryPolicyNotFoundException", "Repository policy"),
            "GetLifecyclePolicy": self._no_policy("LifecyclePolicyNotFoundException", "Lifecycle policy"),
        }

    def _get_token(self, request: Request) -> Answer:
        token = base64.b64encode(f"AWS:{secrets.token_urlsafe(30)}".encode()).decode()
        expiry = time.time() + TOKEN_LIFETIME
        return {
            "authorizationData": [
                {
                    "authorizationToken": token,
                    "expiresAt": expiry,
                    "proxyEndpoint": f"https://{format_registry(self._region, account)}",
                }
                for account in request.get("registryIds", [ACCOUNT])
            ]
        }

    # --- repositories ---

    def _describe_repositories(self, request: Request) -> Answer:
        _check_registry(request)
        known = self._repositories()
        if "repositoryNames" in request:
            return {"repositories": [self._find(known, name) for name in request["repositoryNames"]]}
        page, more = _page([known[name] for name in sorted(known)], request)
        return {"repositories": page, **more}

    def _repositories(self) -> dict[str, Mapping[str, Any]]:
        """Return all repositories by name: those of the engine's images, and created ones."""
        found: dict[str, Mapping[str, Any]] = {}
        for image in self._images():
            for name, _ in self._names(image):
                older = min(image.created, found[name]["createdAt"]) if name in found else image.created
                found[name] = self._repository(name, older)
        query = Query(KIND, order_by="name", descending=False, limit=10_000)
        return found | {record.name: record.description for record in self._state.find(query)}

    def _find(self, known: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
        if name not in known:
            message = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
            raise ServiceError("RepositoryNotFoundException", message)
        return known[name]

    def _repository(self, name: str, created: float, **members: Any) -> dict[str, Any]:
        return {
            "repositoryArn": f"arn:aws:ecr:{self._region}:{ACCOUNT}:repository/{name}",
            "registryId": ACCOUNT,
            "repositoryName": name,
            "repositoryUri": f"{format_registry(self._region)}/{name}",
            "createdAt": created,
            "imageTagMutability": "MUTABLE",
            "imageScanningConfiguration": {"scanOnPush": False},
            "encryptionConfiguration": {"encryptionType": "AES256"},
            **members,
        }

    def _create_repository(self, request: Request) -> Answer:
        _check_registry(request)
        name = request["repositoryName"]
        settings = ("imageTagMutability", "imageScanningConfiguration", "encryptionConfiguration")
        members = {member: request[member] for member in settings if member in request}
        repository = self._repository(name, time.time(), **members)
        try:
            self._state.add(
                KIND, name, repository["repositoryArn"], "Active", {}, repository, tags=request.get("tags", [])
            )
        except NameTakenError as error:
            message = f"The repository with name '{name}' already exists in the registry with id '{ACCOUNT}'"
            raise ServiceError("RepositoryAlreadyExistsException", message) from error
        return {"repository": repository}

    def _delete_repository(self, request: Request) -> Answer:
        """Delete a created repository. Images belong to the engine."""
        _check_registry(request)
        name = request["repositoryName"]
        repository = self._find(self._repositories(), name)
        if any(name == known for image in self._images() for known, _ in self._names(image)):
            message = f"The repository '{name}' has images of the engine, which stay: remove them with docker rmi."
            raise ServiceError("RepositoryNotEmptyException", message)
        self._state.delete(KIND, name)
        return {"repository": repository}

    # --- images ---

    def _names(self, image: Image) -> list[tuple[str, str]]:
        """Return an image's repositories and tags in this registry. Names without a registry belong to it."""
        names = []
        for reference in image.tags:
            repository, _, tag = reference.removeprefix(f"{format_registry(self._region)}/").rpartition(":")
            first = repository.partition("/")[0]
            if not ("/" in repository and ("." in first or ":" in first or first == "localhost")):
                names.append((repository, tag))
        return names

    def _details(self, request: Request) -> list[dict[str, Any]]:
        """Return the images of a repository, the newest first."""
        _check_registry(request)
        name = request["repositoryName"]
        self._find(self._repositories(), name)
        if request.get("filter", {}).get("tagStatus", "ANY") == "UNTAGGED":
            return []
        return [
            {
                "registryId": ACCOUNT,
                "repositoryName": name,
                "imageDigest": image.digest,
                "imageTags": tags,
                "imageSizeInBytes": image.size,
                "imagePushedAt": image.created,
                "imageManifestMediaType": MEDIA_TYPE,
            }
            for image in sorted(self._images(), key=lambda image: -image.created)
            if (tags := [tag for repository, tag in self._names(image) if repository == name])
        ]

    def _describe_images(self, request: Request) -> Answer:
        found = self._details(request)
        if "imageIds" in request:
            return {"imageDetails": [_image(found, wanted, request) for wanted in request["imageIds"]]}
        page, more = _page(found, request)
        return {"imageDetails": page, **more}

    def _list_images(self, request: Request) -> Answer:
        ids = [
            {"imageDigest": item["imageDigest"], "imageTag": tag}
            for item in self._details(request)
            for tag in item["imageTags"]
        ]
        page, more = _page(ids, request)
        return {"imageIds": page, **more}

    # --- tags and policies ---

    def _stored(self, arn: str) -> str:
        """Return the ARN of a created repository. Repositories of the engine's images have no tags."""
        if not self._state.has_arn(arn):
            name = arn.partition(":repository/")[2]
            self._find(self._repositories(), name)
            raise ServiceError(
                "InvalidParameterException", f"{name} has no tags: create it with CreateRepository first."
            )
        return arn

    def _list_tags(self, request: Request) -> Answer:
        arn = request["resourceArn"]
        if not self._state.has_arn(arn):
            self._find(self._repositories(), arn.partition(":repository/")[2])
        return {"tags": self._state.tags(arn)}

    def _tag(self, request: Request) -> Answer:
        self._state.add_tags(self._stored(request["resourceArn"]), request["tags"])
        return {}

    def _untag(self, request: Request) -> Answer:
        self._state.delete_tags(self._stored(request["resourceArn"]), request["tagKeys"])
        return {}

    def _no_policy(self, code: str, what: str) -> Callable[[dict[str, Any]], Answer]:
        def answer(request: Request) -> Answer:
            _check_registry(request)
            name = request["repositoryName"]
            self._find(self._repositories(), name)
            raise ServiceError(code, f"{what} does not exist for the repository with name '{name}'")

        return answer


def _check_registry(request: Request) -> None:
    if request.get("registryId", ACCOUNT) != ACCOUNT:
        message = f"The registry with id '{request['registryId']}' does not exist: there is '{ACCOUNT}'"
        raise ServiceError("InvalidParameterException", message)


def _image(found: Sequence[Mapping[str, Any]], wanted: Mapping[str, str], request: Request) -> Mapping[str, Any]:
    """Return the image with a tag, a digest, or both."""
    digest, tag = wanted.get("imageDigest"), wanted.get("imageTag")
    for image in found:
        if digest in (None, image["imageDigest"]) and (tag is None or tag in image["imageTags"]):
            return image
    message = (
        f"The image with imageId {dict(wanted)} does not exist within the repository '{request['repositoryName']}'"
    )
    raise ServiceError("ImageNotFoundException", message)


def _page(items: Sequence[Any], request: Request) -> tuple[list[Any], dict[str, str]]:
    token, limit = request.get("nextToken", ""), request.get("maxResults", PAGE)
    page, following = cut(items, token, limit, "InvalidParameterException")
    return page, {} if following is None else {"nextToken": following}
