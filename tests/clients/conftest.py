"""The server that the clients talk to."""

from tests.local.conftest import local as local
from tests.local.conftest import processes as processes
