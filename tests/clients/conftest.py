"""The fixtures of tests/local that run a server, for tests of clients."""

from tests.local.conftest import process_server as process_server
from tests.local.conftest import server as server
