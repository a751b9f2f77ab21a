"""Delivery of events about changes of resources to files, commands, webhooks and queues."""
