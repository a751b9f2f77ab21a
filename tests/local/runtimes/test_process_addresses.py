"""Tests of the addresses and ports that are reserved for the hosts of a job."""

import ipaddress
import os
import socket
from typing import Any

import pytest

from microjobs.network import DASK_PORT, HEARTBEAT_PORT, TENSORFLOW_PORT, TORCH_PORT, Network
from microjobs_orchestrator.local.runtimes.process.addresses import _format_address, reserve

NOBODY_UID = 65534
Address = tuple[str, int]


def get_first_address(network: Network) -> Address:
    return network.resolve("algo-1"), network.port("algo-1", HEARTBEAT_PORT)


def can_listen(address: Address, **options: Any) -> bool:
    try:
        socket.create_server(address, **options).close()
    except OSError:
        return False
    return True


def test_addresses_cover_the_documented_network() -> None:
    first, last = _format_address(0), _format_address((1 << 22) - 1)
    network = ipaddress.ip_network("127.64.0.0/10")
    assert (first, last) == (str(network.network_address), str(network.broadcast_address))


def test_several_hosts_get_a_port_for_each_listener() -> None:
    with reserve(["algo-1", "algo-2", "algo-3"]) as (network, port_sockets):
        assert set(network.ports) == {
            ("algo-1", HEARTBEAT_PORT),
            ("algo-1", DASK_PORT),
            ("algo-1", TORCH_PORT),
            *((host, TENSORFLOW_PORT) for host in network.host_addresses),
        }
        assert len(set(network.ports.values())) == len(port_sockets) == 6
        assert len(set(network.host_addresses.values())) == 3


def test_single_host_has_an_address_and_no_ports() -> None:
    with reserve(["algo-1"]) as (network, port_sockets):
        assert (len(network.host_addresses), network.ports, port_sockets) == (1, {}, [])


def test_hosts_can_listen_on_a_reserved_port() -> None:
    with reserve(["algo-1", "algo-2"]) as (network, _):
        assert not can_listen(get_first_address(network))
        assert can_listen(get_first_address(network), reuse_port=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_users_cannot_listen_on_a_reserved_port() -> None:
    with reserve(["algo-1", "algo-2"]) as (network, _):
        address = get_first_address(network)
        child = os.fork()
        if child == 0:
            os.setuid(NOBODY_UID)
            os._exit(any(can_listen((host, address[1]), reuse_port=True) for host in (address[0], "0.0.0.0")))
        assert os.waitpid(child, 0)[1] == 0


def test_dask_can_listen_on_the_address_of_the_first_host() -> None:
    with reserve(["algo-1", "algo-2"]) as (network, _):
        assert can_listen((network.resolve("algo-1"), network.port("algo-1", DASK_PORT)))


@pytest.mark.parametrize("default_port", [TORCH_PORT, TENSORFLOW_PORT])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_frameworks_can_listen_on_all_addresses(default_port: int, family: socket.AddressFamily) -> None:
    with reserve(["algo-1", "algo-2"]) as (network, _):
        assert can_listen(("", network.port("algo-1", default_port)), family=family)
