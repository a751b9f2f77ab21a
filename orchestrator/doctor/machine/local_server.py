"""The local server: running, stopped, or ended without removing its file."""

from collections.abc import Iterator
from dataclasses import dataclass

from microjobs_orchestrator.doctor.check import Finding
from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.local.home import Home


@dataclass(frozen=True)
class LocalServer:
    home: Home
    name: str = "the local server"

    def run(self) -> Iterator[Finding]:
        from microjobs_orchestrator.local import control

        try:
            address = control.find_server(self.home)
        except LauncherError as error:
            yield Finding("problem", str(error))
            return
        if address is not None:
            yield Finding("ok", f"the local server answers at {address.url} (runtime {address.runtime})")
        elif self.home.server.exists():
            message = f"{self.home.server} exists, but its server does not answer"
            yield Finding("note", message, "microjobs local down")
        else:
            yield Finding("ok", "no local server is running: each run starts its own")
