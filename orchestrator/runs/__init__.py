"""The run engine: starts, follows, resumes and stops the jobs of a run, and reads their logs and results."""
