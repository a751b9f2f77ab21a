"""Default handlers of the `sagemaker-inference` convention, for users' code that calls them."""

from typing import Any

from . import decoder, encoder, errors, utils


class DefaultInferenceHandler:
    """Decodes and encodes by content type; the user's code loads the model and predicts."""

    def default_model_fn(self, model_dir: str, context: object = None) -> Any:
        raise NotImplementedError("Please provide a model_fn implementation.")

    def default_input_fn(self, input_data: Any, content_type: str, context: object = None) -> Any:  # noqa: ARG002
        """Decode a body."""
        return decoder.decode(input_data, content_type)

    def default_predict_fn(self, data: Any, model: Any, context: object = None) -> Any:
        raise NotImplementedError("Please provide a predict_fn implementation.")

    def default_output_fn(self, prediction: Any, accept: str, context: object = None) -> tuple[Any, str]:  # noqa: ARG002
        """Encode a prediction in the first type of an Accept header that has an encoder.

        Raises:
            UnsupportedFormatError: no type has an encoder.
        """
        for content_type in utils.parse_accept(accept):
            if content_type in encoder.SUPPORTED_CONTENT_TYPES:
                return encoder.encode(prediction, content_type), content_type
        raise errors.UnsupportedFormatError(accept)
