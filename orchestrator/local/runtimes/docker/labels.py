"""Names and labels of containers, networks and volumes. A later server finds them by their labels."""

import hashlib
from typing import Any

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import Plan

HOME_LABEL = "org.microjobs.home"
PLAN_LABEL = "org.microjobs.plan"
CONTAINERS_LABEL = "org.microjobs.hosts"
"""The number of the plan's containers, guards included."""
HOST_LABEL = "org.microjobs.host"
PORT_LABEL = "org.microjobs.port"
GUARD_LABEL = "org.microjobs.guard"
"""A guard's label with the name of its host."""
SERVED_LABEL = "org.microjobs.served"
"""A label of the network of all hosts that serve. That network belongs to no plan."""


class Labels:
    """Names and labels of what one home owns."""

    def __init__(self, home: Home) -> None:
        self._home = _hash(str(home.root.resolve()))[:8]
        self.served_network = f"microjobs-{self._home}-served"
        self.served_labels = {SERVED_LABEL: self._home}

    def plan_labels(self, plan: Plan, containers_count: int) -> dict[str, str]:
        return {HOME_LABEL: self._home, PLAN_LABEL: plan.name, CONTAINERS_LABEL: str(containers_count)}

    def filters(self, plan_name: str | None = None) -> dict[str, Any]:
        """Return the engine's filters for all objects of a plan; of all plans if none is named."""
        plan = [] if plan_name is None else [f"{PLAN_LABEL}={plan_name}"]
        return {"label": [f"{HOME_LABEL}={self._home}", *plan]}

    def container_name(self, plan: Plan, part: str) -> str:
        return f"microjobs-{self._home}-{plan.name.replace('/', '-')}-{part}"

    def guard_name(self, plan: Plan, host_name: str) -> str:
        """Return a name without the plan's: a search for the host's container by name finds one container."""
        return f"microjobs-{self._home}-guard-{_hash(f'{plan.name}/{host_name}')[:12]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
