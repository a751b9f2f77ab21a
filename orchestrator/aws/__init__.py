"""The same workflows on AWS: settings, costs, and what an account needs for them."""
