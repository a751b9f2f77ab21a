"""Results of a run: the summary on the terminal, and the report page with plots."""
