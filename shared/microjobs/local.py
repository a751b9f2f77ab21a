"""The local server in users' programs: `server()` for a block of code, `connect()` for a notebook.

This is the only module of this package that imports the orchestrator. The images do not contain this module.
"""

from microjobs_orchestrator.library.local_server import LocalServer
from microjobs_orchestrator.library.servers import connect, disconnect, server

__all__ = ["LocalServer", "connect", "disconnect", "server"]
