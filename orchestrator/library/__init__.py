"""The local server as a library: for users' programs, notebooks and tests."""
