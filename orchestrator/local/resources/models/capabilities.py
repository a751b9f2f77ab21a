"""Labels that AWS requires of the images of multi-model containers and of models with several containers.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/build-multi-model-build-container.html
https://docs.aws.amazon.com/sagemaker/latest/dg/inference-pipeline-real-time.html
"""

from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle.context import Context

MULTI_MODELS_LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"
BIND_TO_PORT_LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"


def check_label(context: Context, uri: str, label: str) -> None:
    """Raise ValidationError if an image does not have a label with the value `true`.

    Images that the engine does not have, and images that replace the image of the request, are not checked.
    """
    name = context.resolve_image(uri)
    tags = (name, f"{name}:latest")
    image = next((image for image in context.runtime.images() if not set(tags).isdisjoint(image.tags)), None)
    if image is not None and uri.endswith(name) and image.labels.get(label) != "true":
        raise ValidationError(
            f"Your Ecr Image {uri} does not contain required {label}=true Docker label(s). "
            f"Add `LABEL {label}=true` to its Dockerfile."
        )
