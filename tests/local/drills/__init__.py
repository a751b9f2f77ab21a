"""Drills: tests in which something is killed, lost or full while the server works, and tests of a large load."""
