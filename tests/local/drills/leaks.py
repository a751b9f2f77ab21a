"""Functions that list what a server has created: containers, networks, volumes, work folders and temporary files."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker

from microjobs_orchestrator.local.home import Home
from tests.local.machine import make_home_filter

LABEL = "org.microjobs"


@dataclass(frozen=True)
class ServerTraces:
    """The plans of a server's containers, networks and volumes, and the names of its folders and files."""

    containers: frozenset[str]
    networks: frozenset[str]
    volumes: frozenset[str]
    folders: frozenset[str]
    """The work folders of jobs and endpoints."""
    incoming_files: frozenset[str]
    """The files of objects that are being stored."""
    temporary_files: frozenset[str]
    """The files in the server's TMPDIR."""


def get_plan_names(labels_of_objects: Iterable[Mapping[str, str]]) -> frozenset[str]:
    return frozenset(labels[f"{LABEL}.plan"] for labels in labels_of_objects)


def make_temporary_folder(home: Home) -> Path:
    """Create the TMPDIR of a home's server; return its path.

    Servers of other tests use the default folder, so this folder contains only files of the home's server."""
    folder = home.root.with_name(f"{home.root.name}-temporary")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def list_traces(engine: docker.DockerClient, home: Home) -> ServerTraces:
    """Return what a home's server has created. Its TMPDIR must be the folder that `make_temporary_folder` returns."""
    filters = make_home_filter(home)
    return ServerTraces(
        get_plan_names(
            item.labels for item in engine.containers.list(all=True, ignore_removed=True, filters=dict(filters))
        ),
        get_plan_names(item.attrs["Labels"] for item in engine.networks.list(filters=dict(filters))),
        get_plan_names(item.attrs["Labels"] for item in engine.volumes.list(filters=dict(filters))),
        frozenset(path.name for path in home.work.glob("*-*")),
        frozenset(path.name for path in (home.objects / "incoming").glob("*")),
        frozenset(path.name for path in make_temporary_folder(home).glob("*")),
    )


def list_started_plans(engine: docker.DockerClient, home: Home) -> set[str]:
    """Return the plans whose containers have all started."""
    filters = make_home_filter(home)
    containers = engine.containers.list(all=True, ignore_removed=True, filters=dict(filters))
    started_counts = Counter(
        item.labels[f"{LABEL}.plan"] for item in containers if item.status in ("running", "exited")
    )
    host_counts = {item.labels[f"{LABEL}.plan"]: int(item.labels[f"{LABEL}.hosts"]) for item in containers}
    return {plan for plan, hosts in host_counts.items() if started_counts[plan] == hosts}
