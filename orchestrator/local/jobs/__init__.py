"""What becomes of a request: planned, run, collected, described. A module a kind of job."""
