"""Workflows on AWS: settings, costs, and the template of the resources that an account needs."""
