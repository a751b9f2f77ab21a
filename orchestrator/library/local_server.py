"""A running local server, and clients for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microjobs_orchestrator.local import control
from microjobs_orchestrator.local.home import Home

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True)
class LocalServer:
    """The address of a running server, and the values that requests to it contain."""

    url: str
    region: str
    bucket: str
    """The name of the default bucket."""
    role_arn: str
    """The ARN of a role for requests. The server accepts any role."""
    runtime: str
    """`docker` or `process`."""
    folder: Path
    """The server's folder, which other commands find with the environment variable MICROJOBS_HOME."""
    environment: Mapping[str, str] = field(repr=False)
    """The environment variables with which AWS clients and the SageMaker SDK use this server, in any process."""

    @classmethod
    def from_address(cls, home: Home, address: control.Address) -> "LocalServer":
        """Return the running server of a home."""
        values = {name: value for name, value in asdict(address).items() if name in cls.__dataclass_fields__}
        return cls(**values, folder=home.root, environment=control.make_environment(home, address))

    @property
    def bucket_folder(self) -> Path:
        """The folder of the default bucket: its files are the objects."""
        return Home(self.folder).buckets / self.bucket

    @cached_property
    def session(self) -> "boto3.Session":
        """A session whose clients use this server, whatever the environment and the user's AWS settings are."""
        import boto3
        import botocore.session

        profile = {"profile": (None, None, None, None)}  # this setting ignores the user's profile, which may not exist
        session = botocore.session.Session(profile)
        settings = session.get_component("config_store")
        settings.set_config_variable("endpoint_url", self.url)
        settings.set_config_variable("ignore_configured_endpoint_urls", False)
        return boto3.Session(
            self.environment["AWS_ACCESS_KEY_ID"],
            self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.region,
            botocore_session=session,
        )

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client of this server, such as `client("sagemaker")`, with the options of boto3."""
        return self.session.client(service, **options)  # type: ignore[call-overload]  # any service
