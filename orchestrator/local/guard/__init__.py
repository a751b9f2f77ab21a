"""Guard of a container's network: a program that runs in a small container and shares its network with a host.

It runs `python3 -m orchestrator.local.guard` with this folder and the standard library alone. It sets up a firewall,
which the host cannot change, and then, for a host that serves, relays connections of the server that started it.
"""
