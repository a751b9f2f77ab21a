"""Networks of a plan's hosts."""

import ipaddress
import threading
from collections.abc import Sequence
from typing import Any

import docker
from docker.errors import NotFound
from docker.models.networks import Network

from microjobs_orchestrator.docker_engine import is_podman
from microjobs_orchestrator.local.runtimes.base import HostPlan, Plan
from microjobs_orchestrator.local.runtimes.docker.labels import Labels

INHIBIT_ADDRESS_OPTION = "com.docker.network.bridge.inhibit_ipv4"
"""With this option, the engine gives this machine no address in the network. Without it, even an `internal` network has
such an address, and its containers can connect to each program of this machine that listens on all addresses."""
TRAFFIC_OPTION = "com.docker.network.bridge.enable_icc"
"""The option of a network that allows traffic between its containers."""
PODMAN_NETWORK = "podman"
"""The name of Podman's default network. Some of Podman's responses call it `bridge`."""
DESKTOP_HOST = "host.docker.internal"
LOOPBACK = "127.0.0.1"
"""The loopback address. Hosts whose guard forwards their connections reach this machine at this address."""


class Networks:
    """Creates networks on one engine. Methods may be called from any thread."""

    def __init__(self, client: docker.DockerClient, labels: Labels) -> None:
        self._client = client
        self._labels = labels
        self._is_podman = is_podman(client)
        self._lock = threading.Lock()

    def create(self, plan: Plan, labels: dict[str, str], *, guarded: bool) -> Network | None:
        """Create the network of a plan's hosts, and return it. None stands for the engine's default bridge.

        All hosts that serve and have guards share one network, which is created only once.
        """
        if guarded and plan.is_server:
            return self._ensure_serving_network()
        if len(plan.hosts) == 1 and not plan.isolated:
            return None
        # Without a guard, this machine connects to a serving host directly, so this machine needs an address in the
        # network.
        options = {INHIBIT_ADDRESS_OPTION: "true"} if plan.isolated and not plan.is_server else {}
        return self._client.networks.create(
            self._labels.make_container_name(plan, "network"),
            internal=plan.isolated,
            options=options,
            labels=labels,
            check_duplicate=True,
        )

    def _ensure_serving_network(self) -> Network:
        name = self._labels.serving_network
        with self._lock:
            try:
                return self._client.networks.get(name)
            except NotFound:
                options = {TRAFFIC_OPTION: "false"}
                return self._client.networks.create(
                    name, options=options, labels=self._labels.serving_labels, check_duplicate=True
                )

    def make_container_options(
        self, plan: Plan, host: HostPlan, network: Network | None, machine_address: str
    ) -> dict[str, Any]:
        """Return the options with which a container joins a network.

        Args:
            machine_address: the name or address at which hosts reach this machine, see `Runtime.machine_address`. If it
                is a name, the container can resolve it.
        """
        options: dict[str, Any] = {}
        if machine_address == DESKTOP_HOST:
            options["extra_hosts"] = {DESKTOP_HOST: "host-gateway"}
        if network is not None:
            make_endpoint = self._client.api.create_endpoint_config
            endpoints = {network.name: make_endpoint(aliases=[host.name])}
            if self._is_podman and len(plan.hosts) > 1:
                # Podman's internal networks have no name server, and the name server of other networks does not find
                # all hosts under load.
                options["extra_hosts"] = addresses = choose_addresses(network, [peer.name for peer in plan.hosts])
                endpoints[network.name] = make_endpoint(aliases=[host.name], ipv4_address=addresses[host.name])
            if self._is_podman and not plan.isolated and machine_address != LOOPBACK:
                # Hosts reach this machine at the address of the default bridge. The address exists only while a
                # container uses the bridge, so the container joins the bridge, too.
                endpoints[PODMAN_NETWORK] = make_endpoint()
            options |= {"network": network.name, "networking_config": endpoints}
        return options

    def remove_serving_network(self) -> None:
        """Remove the network of all hosts that serve. Raises APIError while hosts use it."""
        self._client.networks.get(self._labels.serving_network).remove()


def choose_addresses(network: Network, names: Sequence[str]) -> dict[str, str]:
    """Return the IPv4 address of each host in a network that has no other containers."""
    gateway = ipaddress.IPv4Interface(find_ipv4_interface(network))
    free_addresses = (address for address in gateway.network.hosts() if address != gateway.ip)
    return dict(zip(names, map(str, free_addresses), strict=False))


def find_ipv4_interface(network: Network | None) -> str:
    """Return the gateway and the prefix length of a network, such as `172.18.0.1/16`; empty if there is no network.

    Without a gateway, the address is that of the network itself, such as `172.18.0.0/16`.
    """
    if network is None:
        return ""
    config = next(config for config in network.attrs["IPAM"]["Config"] if "." in config["Subnet"])
    address, _, prefix_length = str(config["Subnet"]).partition("/")
    return f"{config.get('Gateway') or address}/{prefix_length}"
