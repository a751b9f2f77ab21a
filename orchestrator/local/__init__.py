"""The local server, which implements AWS's protocols and executes the jobs."""
