"""Settings of a guard, as environment variables."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

PREFIX = "MICROJOBS_GUARD_"

READY = "ready"
"""The line that a guard prints when its network is guarded."""

RELAY_PORT = 61411
"""Where the relay listens. It is above the ports that Linux gives to outgoing connections."""


@dataclass(frozen=True)
class Settings:
    """How a host's network is guarded."""

    secret: str = ""
    """What a caller of the relay must know."""
    target: int = 0
    """The port that the host serves on; 0: it does not serve, and there is no relay."""
    isolated: bool = False
    """Whether the host may open no connections, but for those to its peers."""
    peers: str = ""
    """The IPv4 network of the hosts of the same job, such as `172.18.0.0/16`; empty: there are none."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        given = {name.lower(): environ.get(PREFIX + name, "") for name in ("SECRET", "TARGET", "ISOLATED", "PEERS")}
        return cls(given["secret"], int(given["target"] or 0), given["isolated"] == "True", given["peers"])

    def to_environment(self) -> dict[str, str]:
        return {PREFIX + name.upper(): str(value) for name, value in asdict(self).items()}
