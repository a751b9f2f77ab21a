"""The same workflows on AWS: settings, costs, what an account needs for them, and whether it has it."""
