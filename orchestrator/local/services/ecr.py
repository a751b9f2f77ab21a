"""ECR: the images of the engine, their repositories, and the repositories that CreateRepository created.

The token for the login has no effect, because the images are already in the engine of this machine.
"""

import base64
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from microjobs_orchestrator.local.errors import ServiceError
from microjobs_orchestrator.local.identity import ACCOUNT, format_registry
from microjobs_orchestrator.local.pages import cut_page
from microjobs_orchestrator.local.protocols.results import Service
from microjobs_orchestrator.local.runtimes.base import Image
from microjobs_orchestrator.local.state import NameTakenError, Query, State

KIND = "ecr-repository"
TOKEN_LIFETIME_SECONDS = 12 * 60 * 60
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

Request = Mapping[str, Any]
Response = Mapping[str, Any]

_cut_page = partial(cut_page, member_names=("nextToken", "maxResults"), code="InvalidParameterException")


class Ecr:
    """ECR's operations. The server's state stores the repositories that CreateRepository created.

    Args:
        list_engine_images: returns the images of the engine.
    """

    def __init__(self, state: State, region: str, list_engine_images: Callable[[], Sequence[Image]]) -> None:
        self._state = state
        self._region = region
        self._list_engine_images = list_engine_images

    def list_handlers(self) -> Service:
        handlers: dict[str, Callable[[Request], Response]] = {
            "GetAuthorizationToken": self._get_token,
            "DescribeRepositories": self._describe_repositories,
            "CreateRepository": self._create_repository,
            "DeleteRepository": self._delete_repository,
            "DescribeImages": self._describe_images,
            "ListImages": self._list_images,
            "ListTagsForResource": self._list_tags,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "GetRepositoryPolicy": partial(self._raise_missing_policy, "Repository"),
            "GetLifecyclePolicy": partial(self._raise_missing_policy, "Lifecycle"),
        }
        return {name: partial(_handle_in_registry, handler) for name, handler in handlers.items()}

    def _get_token(self, request: Request) -> Response:
        token = base64.b64encode(f"AWS:{secrets.token_urlsafe(30)}".encode()).decode()
        data = {"authorizationToken": token, "expiresAt": time.time() + TOKEN_LIFETIME_SECONDS}
        registries = [format_registry(self._region, account) for account in request.get("registryIds", [ACCOUNT])]
        return {"authorizationData": [{**data, "proxyEndpoint": f"https://{registry}"} for registry in registries]}

    # --- repositories ---

    def _describe_repositories(self, request: Request) -> Response:
        repositories = self._map_repositories()
        if "repositoryNames" in request:
            return {"repositories": [_find_repository(repositories, name) for name in request["repositoryNames"]]}
        page, token = _cut_page([repositories[name] for name in sorted(repositories)], request)
        return {"repositories": page, **token}

    def _map_repositories(self) -> dict[str, Mapping[str, Any]]:
        """Return the repositories by name. A repository that exists only because of the engine's images is as old as
        its oldest image."""
        newest_first = sorted(self._list_engine_images(), key=lambda image: -image.created)
        times = {name: image.created for image in newest_first for name, _ in self._list_repository_tags(image)}
        records = self._state.find(Query(KIND, order_by="name", descending=False, limit=10_000))
        return {
            **{name: self._make_repository(name, created) for name, created in times.items()},
            **{record.name: record.description for record in records},
        }

    def _make_repository(self, name: str, created: float, **members: Any) -> dict[str, Any]:
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

    def _create_repository(self, request: Request) -> Response:
        name = request["repositoryName"]
        settings = ("imageTagMutability", "imageScanningConfiguration", "encryptionConfiguration")
        members = {member: request[member] for member in settings if member in request}
        repository = self._make_repository(name, time.time(), **members)
        try:
            self._state.add(
                KIND,
                name,
                repository["repositoryArn"],
                status="Active",
                request={},
                description=repository,
                tags=request.get("tags", []),
            )
        except NameTakenError as error:
            message = f"The repository with name '{name}' already exists in the registry with id '{ACCOUNT}'"
            raise ServiceError("RepositoryAlreadyExistsException", message) from error
        return {"repository": repository}

    def _delete_repository(self, request: Request) -> Response:
        name = request["repositoryName"]
        repository = _find_repository(self._map_repositories(), name)
        if any(
            name == repository_name
            for image in self._list_engine_images()
            for repository_name, _ in self._list_repository_tags(image)
        ):
            message = f"The repository '{name}' contains images of the local engine: remove them with docker rmi."
            raise ServiceError("RepositoryNotEmptyException", message)
        self._state.delete(KIND, name)
        return {"repository": repository}

    # --- images ---

    def _list_repository_tags(self, image: Image) -> list[tuple[str, str]]:
        """Return an image's repositories and tags in this registry.

        A repository whose name states no registry, such as `microjobs/serve`, also belongs to this registry.
        """
        names = []
        for reference in image.tags:
            repository, _, tag = reference.removeprefix(f"{format_registry(self._region)}/").rpartition(":")
            segment = repository.partition("/")[0]  # the other registry's host name, if the name states one
            if not ("/" in repository and ("." in segment or ":" in segment or segment == "localhost")):
                names.append((repository, tag))
        return names

    def _list_image_details(self, request: Request) -> list[dict[str, Any]]:
        name = request["repositoryName"]
        _find_repository(self._map_repositories(), name)
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
            for image in sorted(self._list_engine_images(), key=lambda image: -image.created)
            if (tags := [tag for repository, tag in self._list_repository_tags(image) if repository == name])
        ]

    def _describe_images(self, request: Request) -> Response:
        details = self._list_image_details(request)
        if "imageIds" in request:
            return {"imageDetails": [_find_image(details, image_id, request) for image_id in request["imageIds"]]}
        page, token = _cut_page(details, request)
        return {"imageDetails": page, **token}

    def _list_images(self, request: Request) -> Response:
        ids = [
            {"imageDigest": item["imageDigest"], "imageTag": tag}
            for item in self._list_image_details(request)
            for tag in item["imageTags"]
        ]
        page, token = _cut_page(ids, request)
        return {"imageIds": page, **token}

    # --- tags and policies ---

    def _find_by_arn(self, arn: str) -> Mapping[str, Any]:
        return _find_repository(self._map_repositories(), arn.partition(":repository/")[2])

    def _check_created(self, arn: str) -> None:
        """Raise ServiceError unless CreateRepository created the repository: only such a repository can have tags."""
        if self._state.get_by_arn(arn) is None:
            name = self._find_by_arn(arn)["repositoryName"]
            message = f"{name} cannot have tags: create it with CreateRepository first."
            raise ServiceError("InvalidParameterException", message)

    def _list_tags(self, request: Request) -> Response:
        if self._state.get_by_arn(request["resourceArn"]) is None:
            self._find_by_arn(request["resourceArn"])
        return {"tags": self._state.tags(request["resourceArn"])}

    def _tag(self, request: Request) -> Response:
        self._check_created(request["resourceArn"])
        self._state.add_tags(request["resourceArn"], request["tags"])
        return {}

    def _untag(self, request: Request) -> Response:
        self._check_created(request["resourceArn"])
        self._state.delete_tags(request["resourceArn"], request["tagKeys"])
        return {}

    def _raise_missing_policy(self, policy: str, request: Request) -> Response:
        name = request["repositoryName"]
        _find_repository(self._map_repositories(), name)
        message = f"{policy} policy does not exist for the repository with name '{name}'"
        raise ServiceError(f"{policy}PolicyNotFoundException", message)


def _handle_in_registry(handler: Callable[[Request], Response], request: Request) -> Response:
    if request.get("registryId", ACCOUNT) != ACCOUNT:
        message = f"The registry with id '{request['registryId']}' does not exist: the only registry is '{ACCOUNT}'"
        raise ServiceError("InvalidParameterException", message)
    return handler(request)


def _find_repository(repositories: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    if name not in repositories:
        message = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
        raise ServiceError("RepositoryNotFoundException", message)
    return repositories[name]


def _find_image(details: Sequence[Mapping[str, Any]], image_id: Mapping[str, str], request: Request) -> Response:
    digest, tag = image_id.get("imageDigest"), image_id.get("imageTag")
    for image in details:
        if digest in (None, image["imageDigest"]) and (tag is None or tag in image["imageTags"]):
            return image
    repository = request["repositoryName"]
    message = f"The image with imageId {dict(image_id)} does not exist within the repository '{repository}'"
    raise ServiceError("ImageNotFoundException", message)
