"""Proxies and certificates with which jobs reach other networks, from the settings of the server and of Docker's
clients."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from microjobs.contract import DEFAULT_ROOT

PROXY_SETTING_NAMES = ("http", "https", "all", "no")
"""Names of the settings. `http` sets the variables HTTP_PROXY and http_proxy; `no` lists names that need no proxy."""
PROXY_VARIABLES = frozenset(f"{name}_proxy" for name in PROXY_SETTING_NAMES)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "127.0.0.0/8")
"""Entries of NO_PROXY for this machine: its names for clients that compare texts, and its network for clients that
support networks."""

CA_BUNDLE_NAME = "ca-bundle.pem"
"""Name of the file with certificates in the contract's root. On AWS, containers have no such file."""
CA_BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)


@dataclass(frozen=True)
class NetworkSettings:
    """Proxies and certificates for jobs that are not isolated."""

    proxies: Mapping[str, str] = field(default_factory=dict)
    """Addresses by the names of `PROXY_SETTING_NAMES`; `no` is a list with commas."""
    ca_bundle: bytes = b""
    """Certificates in PEM; empty if jobs use the certificates of their image."""

    def make_variables(self, request_variables: Iterable[str], names_without_proxy: Iterable[str]) -> dict[str, str]:
        """Return a host's variables.

        Args:
            request_variables: names of the variables that the request sets. If one of them names a proxy, the host
                also gets a NO_PROXY, so that it reaches the server.
            names_without_proxy: names and addresses that must be reached without a proxy.
        """
        variables = dict.fromkeys(CA_BUNDLE_VARIABLES if self.ca_bundle else (), f"{DEFAULT_ROOT}/{CA_BUNDLE_NAME}")
        if not self.proxies and PROXY_VARIABLES.isdisjoint(name.lower() for name in request_variables):
            return variables
        direct = [self.proxies.get("no", ""), *LOOPBACK_NAMES, *names_without_proxy]
        for name, value in {**self.proxies, "no": ",".join(filter(None, direct))}.items():
            variables[f"{name}_proxy"] = variables[f"{name}_PROXY".upper()] = value
        return variables

    def write_files(self, root: Path) -> None:
        """Write the certificates, if there are any, into a folder that becomes the contract's root."""
        if self.ca_bundle:
            (root / CA_BUNDLE_NAME).write_bytes(self.ca_bundle)


def read_ca_bundle(path: str) -> bytes:
    """Return the content of a file of certificates, or empty bytes if the path is empty.

    Raises:
        OSError: the file cannot be read, or contains no certificate.
    """
    if not path:
        return b""
    import ssl  # this import is slow

    ssl.create_default_context(cafile=path)  # this call raises an error for a file without certificates
    return Path(path).read_bytes()


def read_docker_proxies(address: str) -> dict[str, str]:
    """Return the proxies that the settings of Docker's client define for the containers of an engine.

    `docker run` uses the same proxies: https://docs.docker.com/engine/cli/proxy/

    Args:
        address: the address of the engine.
    """
    from docker.utils.config import load_general_config

    proxies = load_general_config().get("proxies") or {}
    settings = proxies.get(address) or proxies.get("default") or {}
    return {name: settings[f"{name}Proxy"] for name in PROXY_SETTING_NAMES if settings.get(f"{name}Proxy")}
