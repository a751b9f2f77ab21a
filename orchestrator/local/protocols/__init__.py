"""Protocols of AWS: one module per protocol. The modules use botocore's service models."""
