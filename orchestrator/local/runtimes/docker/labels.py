"""Names and labels of the server's containers, networks and volumes, by which a restarted server finds them."""

import hashlib

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.local.runtimes.base import Plan

HOME_LABEL = "org.microjobs.home"
PLAN_LABEL = "org.microjobs.plan"
CONTAINERS_LABEL = "org.microjobs.hosts"
"""Label with the number of the plan's containers, including guards."""
HOST_LABEL = "org.microjobs.host"
PORT_LABEL = "org.microjobs.port"
GUARD_LABEL = "org.microjobs.guard"
"""Label of a guard, with the name of its host."""
SERVING_LABEL = "org.microjobs.served"
"""Label of the network that all serving hosts share. This network belongs to no single plan."""


class Labels:
    """Makes the names and labels of the objects that belong to one home."""

    def __init__(self, home: Home) -> None:
        self._home_id = _hash(str(home.root.resolve()))[:8]
        self.serving_network = f"microjobs-{self._home_id}-served"
        self.serving_labels = {SERVING_LABEL: self._home_id}

    def make_plan_labels(self, plan: Plan, container_count: int) -> dict[str, str]:
        return {HOME_LABEL: self._home_id, PLAN_LABEL: plan.name, CONTAINERS_LABEL: str(container_count)}

    def make_common_labels(self, plan_name: str | None = None) -> dict[str, str]:
        """Return the labels that all objects of one plan, or of all plans, have."""
        plan_label = {} if plan_name is None else {PLAN_LABEL: plan_name}
        return {HOME_LABEL: self._home_id, **plan_label}

    def make_container_name(self, plan: Plan, suffix: str) -> str:
        return f"microjobs-{self._home_id}-{plan.name.replace('/', '-')}-{suffix}"

    def make_guard_name(self, plan: Plan, host_name: str) -> str:
        """Return the name of a guard. It omits the plan's name, so that a search for that name finds only hosts."""
        return f"microjobs-{self._home_id}-guard-{_hash(f'{plan.name}/{host_name}')[:12]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
