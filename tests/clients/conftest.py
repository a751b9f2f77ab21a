"""The server for the clients."""

from tests.local.conftest import local as local
from tests.local.conftest import processes as processes
