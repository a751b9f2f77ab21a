"""The package index that jobs' packages are installed from."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from microjobs_orchestrator.doctor.check import Finding

VARIABLES = ("INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
DEFAULT_URL = "https://pypi.org/simple"
TIMEOUT_SECONDS = 10
REMEDY = "check the network and the proxy, or set INDEX_URL or LOCAL_PACKAGES: docs/maintaining/building.md"
TLS_REMEDY = (
    f"behind a gateway that inspects TLS, set SSL_CERT_FILE to a file with its CA certificate; otherwise, {REMEDY}"
)


@dataclass(frozen=True)
class PackageIndex:
    environ: Mapping[str, str]
    name: str = "the package index"

    def run(self) -> Iterator[Finding]:
        import requests

        url = next((self.environ[name] for name in VARIABLES if self.environ.get(name)), DEFAULT_URL).rstrip("/")
        index = f"the package index {re.sub(r'//[^/@]*@', '//', url)}"  # without a password
        certificates = self.environ.get("SSL_CERT_FILE") or self.environ.get("PIP_CERT") or True
        try:
            response = requests.get(f"{url}/pip/", timeout=TIMEOUT_SECONDS, verify=certificates, stream=True)
            response.close()
        except (requests.RequestException, OSError) as error:
            message = f"{index} does not answer ({type(error).__name__}): jobs' packages are installed from it"
            remedy = TLS_REMEDY if isinstance(error, requests.exceptions.SSLError) else REMEDY
            yield Finding("problem", message, remedy)
        else:
            if response.ok:
                yield Finding("ok", f"{index} answers")
            else:
                yield Finding("problem", f"{index} answers {response.status_code} for pip", REMEDY)
