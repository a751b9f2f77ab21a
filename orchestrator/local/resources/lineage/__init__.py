"""Lineage: artifacts, and the associations between artifacts, trial components and other resources."""
