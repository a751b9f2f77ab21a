"""The guard's main program; `Settings` lists its environment variables."""

import signal
import sys
import threading

from microjobs_orchestrator.local.guard import firewall, forwarding, relay
from microjobs_orchestrator.local.guard.settings import READY_LINE, Settings


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # without a handler, the kernel drops signals to process 1
    settings = Settings.from_environment()
    if settings.target or settings.isolated:
        install_firewall(settings)
    if settings.target:
        relay.start(settings.secret, settings.target)
    if settings.forwards:
        forwarding.start()
    print(READY_LINE, flush=True)
    threading.Event().wait()


def install_firewall(settings: Settings) -> None:
    try:
        firewall.install(firewall.make_chains(settings))
    except OSError as error:
        sys.exit(f"the kernel refuses the nftables firewall: {error}")


if __name__ == "__main__":
    main()
