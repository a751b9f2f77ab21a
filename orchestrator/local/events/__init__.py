"""Delivery of events about changes of resources to files, commands and webhooks."""
