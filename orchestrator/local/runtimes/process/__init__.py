"""Runtime `process`: each host is a process with a virtual environment and no container."""
