"""A container's guard: a program in a small container that shares its network with a host.

The guard's container has only this folder and the standard library, and runs `python3 -m
microjobs_orchestrator.local.guard`. It sets up a firewall, which the host cannot change. For a host that serves, it
then relays connections from the server that started it.
"""
