"""Runtime `docker`: each host is a container of an engine that implements Docker's API."""
