"""Protocols of AWS: one module per protocol, which reads botocore's service models."""
