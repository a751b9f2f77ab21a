"""Settings of a guard, as environment variables."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

VARIABLE_PREFIX = "MICROJOBS_GUARD_"

READY_LINE = "ready"
"""The line that a guard prints when its firewall is set up, and its other parts listen."""

RELAY_PORT = 61411
"""The relay's port. It is above the ports that Linux assigns to outgoing connections."""

SERVER_PORT = 61412
"""The port of the loopback interface at which a host finds the server, if the guard forwards its connections."""


@dataclass(frozen=True)
class Settings:
    """Settings of one guard."""

    secret: str = ""
    """A caller of the relay must prove that it knows this secret."""
    target: int = 0
    """The host's port; 0 if the host does not serve and needs no relay."""
    isolated: bool = False
    """Whether the host may connect only to its peers."""
    forwards: bool = False
    """Whether the guard forwards connections to the server, because the host cannot connect to the server's machine."""
    peers: str = ""
    """The IPv4 network of the job's hosts: the address of its gateway and the length of its prefix, such as
    `172.18.0.1/16`; empty without peers."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        secret, target, isolated, forwards, peers = (
            environ.get(VARIABLE_PREFIX + field.name.upper(), "") for field in fields(cls)
        )
        return cls(secret, int(target or 0), isolated == "True", forwards == "True", peers)

    def to_environment(self) -> dict[str, str]:
        return {VARIABLE_PREFIX + name.upper(): str(value) for name, value in asdict(self).items()}
