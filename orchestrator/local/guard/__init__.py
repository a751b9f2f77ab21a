"""A host's guard: a program in a small container of its own, which uses the same network namespace as the host.

The guard's container has only this folder and the standard library, and runs `python3 -m
microjobs_orchestrator.local.guard`. It sets up a firewall, which the host cannot change. If the host serves requests,
the guard then relays the local server's connections to it.
"""
