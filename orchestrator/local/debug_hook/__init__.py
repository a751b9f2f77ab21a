"""The module `sitecustomize` of hosts that are debugged. The server only copies it: see `lifecycle/debugging.py`."""
