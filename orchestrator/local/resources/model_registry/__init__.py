"""The model registry: model packages, and the groups of their versions."""
