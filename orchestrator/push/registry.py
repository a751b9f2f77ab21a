"""The part of a registry's HTTP API that reads the manifest of a tag.

The API: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
Tokens: https://distribution.github.io/distribution/spec/auth/token/
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import requests.utils
from requests.auth import AuthBase, HTTPBasicAuth

from microjobs_orchestrator.failures import CommandError
from microjobs_orchestrator.push.destination import Destination
from microjobs_orchestrator.push.login import PASSWORD_VARIABLE, USER_VARIABLE
from microjobs_orchestrator.push.tags import Image
from microjobs_orchestrator.registry_logins import RegistryLogin

TIMEOUT_SECONDS = 30
"""Time limit for the connection to a registry, and between two parts of its answer."""
MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
API_HOSTS = {"docker.io": "registry-1.docker.io"}
"""Hosts of the API, by registry, if they differ from the host in the names of images."""


@dataclass(frozen=True)
class Manifest:
    digest: str
    config_digest: str
    """The digest of the image's config; empty for an index of several images."""
    media_type: str

    def describes(self, image: Image) -> bool:
        """Return whether this is the manifest of an image. Engines use either digest as the image's ID."""
        return image.id in (self.digest, self.config_digest)


class Registry:
    """A client for the registry of a destination."""

    def __init__(self, destination: Destination, login: RegistryLogin | None) -> None:
        self.destination = destination
        self.login = login
        self.host = destination.host
        local = is_loopback(self.host)
        self.base_url = f"{'http' if local else 'https'}://{API_HOSTS.get(self.host, self.host)}/v2"
        self.session = requests.Session()
        self.session.trust_env = not local  # requests to this machine need no proxy

    def close(self) -> None:
        self.session.close()

    def get_manifest(self, job: str, tag: str) -> Manifest | None:
        """Return the manifest of a tag in a job's repository; None if the tag does not exist.

        Raises:
            CommandError: the registry does not answer, or refuses the request.
        """
        name = self.destination.make_repository_name(job)
        try:
            response = self._get(name, tag)
            if response.status_code == requests.codes.not_found:
                return None
            response.raise_for_status()
            content = response.json()
        except requests.HTTPError as error:
            raise self._make_error(name, error.response) from error
        except requests.RequestException as error:
            raise CommandError(
                f"{self.host} does not respond like a registry: {error}; check its name and the network, "
                "then push again"
            ) from error
        digest = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        media_type = content.get("mediaType") or response.headers.get("Content-Type", "")
        return Manifest(digest, config_digest=content.get("config", {}).get("digest", ""), media_type=media_type)

    def _get(self, name: str, tag: str) -> requests.Response:
        url = f"{self.base_url}/{name}/manifests/{tag}"
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        response = self.session.get(url, headers=headers, timeout=TIMEOUT_SECONDS)
        if response.status_code != requests.codes.unauthorized:
            return response
        scheme, _, parameters = response.headers.get("WWW-Authenticate", "").partition(" ")
        challenge = requests.utils.parse_dict_header(parameters)  # type: ignore[no-untyped-call]
        auth = self._fetch_token(challenge, name) if scheme.lower() == "bearer" else self._make_basic_auth()
        return self.session.get(url, headers=headers, timeout=TIMEOUT_SECONDS, auth=auth)

    def _make_basic_auth(self) -> HTTPBasicAuth | None:
        return HTTPBasicAuth(self.login.user, self.login.password) if self.login else None

    def _fetch_token(self, challenge: dict[str, str | None], name: str) -> "_BearerAuth":
        """Fetch a token for one repository from the address in the challenge."""
        realm = challenge.get("realm") or ""
        if urlsplit(realm).scheme != "https" and not is_loopback(urlsplit(realm).netloc):
            problem = f"requests a login at {realm!r}, which is not an https address: no login was sent"
            raise CommandError(f"registry {self.host} {problem}")
        # The scope includes `push`: before the first push of a repository, a registry may refuse a token for `pull`
        # alone.
        scope = {"service": challenge.get("service") or "", "scope": f"repository:{name}:pull,push"}
        if self.login is not None and self.login.identity_token:
            form = {"grant_type": "refresh_token", "client_id": "microjobs", **scope}
            form["refresh_token"] = self.login.identity_token
            response = self.session.post(realm, data=form, timeout=TIMEOUT_SECONDS)
        else:
            response = self.session.get(realm, params=scope, timeout=TIMEOUT_SECONDS, auth=self._make_basic_auth())
        response.raise_for_status()
        content = response.json()
        return _BearerAuth(content.get("token") or content.get("access_token") or "")

    def _make_error(self, name: str, response: requests.Response) -> CommandError:
        problem = f"registry {self.host} answers {response.status_code} {response.reason} for repository {name}"
        if response.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            return CommandError(
                f"{problem}: `docker login {self.host}`, or set {USER_VARIABLE} and {PASSWORD_VARIABLE}"
            )
        return CommandError(f"{problem}: push again later")


class _BearerAuth(AuthBase):
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def is_loopback(host: str) -> bool:
    """Return whether a registry is on this machine. Engines use plain HTTP for such registries."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
