"""The objects of a server: on the engine, in its home, and in the folder for temporary files."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker

from microjobs_orchestrator.local.home import Home
from tests.local.machine import home_filter

LABEL = "org.microjobs"


@dataclass(frozen=True)
class Machine:
    """The plans of a server's containers, networks and volumes, and the names of its files."""

    containers: frozenset[str]
    networks: frozenset[str]
    volumes: frozenset[str]
    folders: frozenset[str]
    incoming: frozenset[str]
    temporary: frozenset[str]


def plans_of(labels: Iterable[Mapping[str, str]]) -> frozenset[str]:
    return frozenset(item[f"{LABEL}.plan"] for item in labels)


def temporary_folder(home: Home) -> Path:
    """Make and return the TMPDIR of a home's server. Servers of other tests use the common one."""
    folder = home.root.with_name(f"{home.root.name}-temporary")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def machine(engine: docker.DockerClient, home: Home) -> Machine:
    """Return the objects of a home's server, whose TMPDIR is `temporary_folder`."""
    mine = home_filter(home)
    return Machine(
        plans_of(item.labels for item in engine.containers.list(all=True, ignore_removed=True, filters=dict(mine))),
        plans_of(item.attrs["Labels"] for item in engine.networks.list(filters=dict(mine))),
        plans_of(item.attrs["Labels"] for item in engine.volumes.list(filters=dict(mine))),
        frozenset(path.name for path in home.work.glob("*-*")),
        frozenset(path.name for path in (home.objects / "incoming").glob("*")),
        frozenset(path.name for path in temporary_folder(home).glob("*")),
    )


def started(engine: docker.DockerClient, home: Home) -> set[str]:
    """Return the plans whose containers have all started."""
    mine = home_filter(home)
    there = engine.containers.list(all=True, ignore_removed=True, filters=dict(mine))
    running = Counter(item.labels[f"{LABEL}.plan"] for item in there if item.status in ("running", "exited"))
    wanted = {item.labels[f"{LABEL}.plan"]: int(item.labels[f"{LABEL}.hosts"]) for item in there}
    return {plan for plan, hosts in wanted.items() if running[plan] == hosts}
