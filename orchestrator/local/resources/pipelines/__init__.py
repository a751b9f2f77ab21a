"""Pipelines: their definitions, versions and executions."""
