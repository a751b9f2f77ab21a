"""Lists what a server has created: objects of the engine, folders of its home, and temporary files."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker

from microjobs_orchestrator.local.home import Home
from tests.local.machine import home_filter

LABEL = "org.microjobs"


@dataclass(frozen=True)
class ServerObjects:
    """The plans of a server's containers, networks and volumes, and the names of its files."""

    containers: frozenset[str]
    networks: frozenset[str]
    volumes: frozenset[str]
    folders: frozenset[str]
    incoming: frozenset[str]
    temporary: frozenset[str]


def get_plans(labels: Iterable[Mapping[str, str]]) -> frozenset[str]:
    return frozenset(item[f"{LABEL}.plan"] for item in labels)


def temporary_folder(home: Home) -> Path:
    """Make and return the TMPDIR of a home's server. Servers of other tests use the default folder."""
    folder = home.root.with_name(f"{home.root.name}-temporary")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def list_objects(engine: docker.DockerClient, home: Home) -> ServerObjects:
    """Return the objects of a home's server, whose TMPDIR is `temporary_folder`."""
    filters = home_filter(home)
    return ServerObjects(
        get_plans(item.labels for item in engine.containers.list(all=True, ignore_removed=True, filters=dict(filters))),
        get_plans(item.attrs["Labels"] for item in engine.networks.list(filters=dict(filters))),
        get_plans(item.attrs["Labels"] for item in engine.volumes.list(filters=dict(filters))),
        frozenset(path.name for path in home.work.glob("*-*")),
        frozenset(path.name for path in (home.objects / "incoming").glob("*")),
        frozenset(path.name for path in temporary_folder(home).glob("*")),
    )


def list_started_plans(engine: docker.DockerClient, home: Home) -> set[str]:
    """Return the plans whose containers have all started."""
    filters = home_filter(home)
    containers = engine.containers.list(all=True, ignore_removed=True, filters=dict(filters))
    running = Counter(item.labels[f"{LABEL}.plan"] for item in containers if item.status in ("running", "exited"))
    expected = {item.labels[f"{LABEL}.plan"]: int(item.labels[f"{LABEL}.hosts"]) for item in containers}
    return {plan for plan, hosts in expected.items() if running[plan] == hosts}
