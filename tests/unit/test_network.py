"""Addresses and ports at which hosts find each other."""

from microjobs.network import Network


def test_network_is_equal_after_a_round_trip_through_variables() -> None:
    network = Network("127.64.0.2", {"algo-1": "127.64.0.1", "algo-2": "127.64.0.2"}, {("algo-1", 8787): 40001})
    assert Network.read(network.make_variables()) == network
    assert network.resolve("algo-1") == "127.64.0.1"
    assert (network.port("algo-1", 8787), network.port("algo-2", 8890)) == (40001, 8890)


def test_container_listens_on_all_addresses_and_uses_host_names() -> None:
    network = Network.read({})
    assert network.address == "0.0.0.0"
    assert network.resolve("algo-1") == "algo-1"
