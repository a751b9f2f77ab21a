"""The model registry: model packages, and model package groups."""
