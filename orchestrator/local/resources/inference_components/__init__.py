"""Inference components: several models on one endpoint, each with its own number of copies."""
