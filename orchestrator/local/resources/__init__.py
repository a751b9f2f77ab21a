"""Resource families: one folder per family."""
