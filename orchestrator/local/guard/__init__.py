"""A host's guard: a program in its own small container. This container uses the same network namespace as the host.

The guard's container has only this folder and the standard library, and runs `python3 -m
microjobs_orchestrator.local.guard`. If the host serves requests or is isolated, the guard sets up a firewall, which the
host cannot change. If the host serves requests, the guard then relays the local server's connections to the host. If
the host cannot connect to the server's machine, the guard passes the host's connections to the server.
"""
