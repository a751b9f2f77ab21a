"""As much of a registry's HTTP API as tells what a tag means there.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md and, for tokens,
https://distribution.github.io/distribution/spec/auth/token/
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import requests.utils
from requests.auth import AuthBase, HTTPBasicAuth

from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.push.credentials import PASSWORD, USER, Credentials
from microjobs_orchestrator.push.plan import Image

SECONDS = 30
"""How long a registry may be silent."""
MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
DOCKER_HUB = {"docker.io": "registry-1.docker.io"}
"""Where a registry answers that is named otherwise."""


@dataclass(frozen=True)
class Manifest:
    """What a tag stands for."""

    digest: str
    config: str
    """The digest of the image's config; empty for an index of several images."""
    media_type: str

    def holds(self, image: Image) -> bool:
        """Whether it is this image, whichever of the two digests its engine knows it by."""
        return image.id in (self.digest, self.config)


class Registry:
    """A registry, with our login."""

    def __init__(self, host: str, credentials: Credentials | None) -> None:
        self.host = host
        self.credentials = credentials
        local = is_loopback(host)
        self.base = f"{'http' if local else 'https'}://{DOCKER_HUB.get(host, host)}/v2"
        self.session = requests.Session()
        self.session.trust_env = not local  # no proxy stands between this machine and itself

    def close(self) -> None:
        self.session.close()

    def manifest(self, name: str, tag: str) -> Manifest | None:
        """What a repository has under a tag; None if there is nothing.

        Raises:
            LauncherError: the registry does not answer, or does not let us look.
        """
        try:
            answer = self._get(name, tag)
            if answer.status_code == requests.codes.not_found:
                return None
            answer.raise_for_status()
            content = answer.json()
        except requests.HTTPError as error:
            raise self._refusal(name, error.response) from error
        except requests.RequestException as error:
            raise LauncherError(
                f"registry {self.host} does not answer as one: {error}; check its name and the network, then push again"
            ) from error
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        media_type = content.get("mediaType") or answer.headers.get("Content-Type", "")
        return Manifest(digest, content.get("config", {}).get("digest", ""), media_type)

    def _get(self, name: str, tag: str) -> requests.Response:
        url = f"{self.base}/{name}/manifests/{tag}"
        answer = self.session.get(url, headers={"Accept": MANIFESTS}, timeout=SECONDS)
        if answer.status_code != requests.codes.unauthorized:
            return answer
        kind, _, parameters = answer.headers.get("WWW-Authenticate", "").partition(" ")
        challenge = requests.utils.parse_dict_header(parameters)  # type: ignore[no-untyped-call]
        auth = self._bearer(challenge, name) if kind.lower() == "bearer" else self._basic()
        return self.session.get(url, headers={"Accept": MANIFESTS}, timeout=SECONDS, auth=auth)

    def _basic(self) -> HTTPBasicAuth | None:
        return HTTPBasicAuth(self.credentials.user, self.credentials.password) if self.credentials else None

    def _bearer(self, challenge: dict[str, str | None], name: str) -> "_Bearer":
        """A token for one repository, from who the registry says gives it."""
        realm = challenge.get("realm") or ""
        if urlsplit(realm).scheme != "https" and not is_loopback(urlsplit(realm).netloc):
            raise LauncherError(
                f"registry {self.host} wants a login at {realm!r}, which is not https: nothing was sent"
            )
        # To push as well, or a registry may say "denied" for a repository that the push would make.
        wanted = {"service": challenge.get("service") or "", "scope": f"repository:{name}:pull,push"}
        if self.credentials is not None and self.credentials.identity_token:
            form = {"grant_type": "refresh_token", "client_id": "microjobs", **wanted}
            form["refresh_token"] = self.credentials.identity_token
            answer = self.session.post(realm, data=form, timeout=SECONDS)
        else:
            answer = self.session.get(realm, params=wanted, timeout=SECONDS, auth=self._basic())
        answer.raise_for_status()
        content = answer.json()
        return _Bearer(content.get("token") or content.get("access_token") or "")

    def _refusal(self, name: str, answer: requests.Response) -> LauncherError:
        said = f"registry {self.host} answers {answer.status_code} {answer.reason} to a look at {name}"
        if answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            return LauncherError(f"{said}: `docker login {self.host}`, or set {USER} and {PASSWORD}")
        return LauncherError(f"{said}: push again when it is well")


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def is_loopback(host: str) -> bool:
    """Whether a registry is on this machine, where engines speak plain HTTP to it."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
