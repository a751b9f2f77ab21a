"""The server that the clients talk to."""

from tests.local.conftest import local as local
