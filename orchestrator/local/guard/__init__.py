"""Guard of a container's network: a program that runs in a small container and shares its network with a host.

It runs `python3 -m microjobs_orchestrator.local.guard` with this folder and the standard library alone. It sets up
a firewall, which the host cannot change. For a host that serves, it then relays connections of the server that
started it.
"""
