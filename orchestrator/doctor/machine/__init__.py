"""Checks of this machine."""

import os
from collections.abc import Iterator, Mapping

from microjobs_orchestrator.doctor.check import Check, Finding
from microjobs_orchestrator.doctor.machine.build_tools import BuildTools
from microjobs_orchestrator.doctor.machine.engine import Engine
from microjobs_orchestrator.doctor.machine.images import Images
from microjobs_orchestrator.doctor.machine.local_packages import LocalPackages
from microjobs_orchestrator.doctor.machine.local_server import LocalServer
from microjobs_orchestrator.doctor.machine.package_index import PackageIndex
from microjobs_orchestrator.doctor.machine.process_runtime import ProcessRuntime
from microjobs_orchestrator.doctor.machine.python import Python
from microjobs_orchestrator.doctor.machine.resources import Resources
from microjobs_orchestrator.local.home import Home


def examine(home: Home, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Run all checks and yield each finding as soon as it is known."""
    yield from Python().run()
    findings = list(Engine(environ).run())
    yield from findings
    for check in checks(home, environ, engine_available=findings[0].level == "ok"):
        yield from check.run()


def checks(home: Home, environ: Mapping[str, str], *, engine_available: bool) -> list[Check]:
    """Return the checks that follow the engine's: images need the engine, and processes are the alternative."""
    for_runtime: list[Check] = [BuildTools(), Images()] if engine_available else [PackageIndex(environ)]
    return [
        ProcessRuntime(required=not engine_available),
        *for_runtime,
        Resources(home),
        LocalPackages(environ),
        LocalServer(home),
    ]
