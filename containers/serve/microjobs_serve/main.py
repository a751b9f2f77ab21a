"""Hosting and Batch Transform: an HTTP server for one model, or for the models of a multi-model endpoint."""

from microjobs.hosting import server

from .model_source import find_model_source


def serve() -> None:
    """Serve the bundle or the user's code in the model folder; see `microjobs.hosting.server.serve`."""
    server.serve(find_model_source)
