"""Types of steps: how each type starts, ends and stops, and which properties it has."""
