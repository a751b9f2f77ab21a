"""Runs of workflows: these modules start, follow, resume and stop jobs, and read their logs and results."""
