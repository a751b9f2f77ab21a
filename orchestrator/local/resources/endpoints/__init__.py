"""Endpoints and their configurations."""
