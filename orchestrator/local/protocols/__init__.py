"""Protocols of AWS, one module each, driven by botocore's service models."""
