"""Serves SavedModels with TensorFlow Serving's REST API, as AWS's image for TensorFlow inference does."""
