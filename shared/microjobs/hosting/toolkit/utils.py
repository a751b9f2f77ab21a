"""Helper functions of the `sagemaker-inference` convention."""


def parse_accept(accept: str) -> list[str]:
    """Split an Accept header into its media types, in order."""
    return accept.replace(" ", "").split(",")
