"""The parts of the `sagemaker-inference` package that users' code imports: encoders, decoders, errors, content types.

They behave as those of version 1.10.1, except that nothing is pickled or unpickled. Users' code imports them by the
package's own name: its installation would add scipy and boto3 to the image, and its decoder unpickles requests.
"""

import importlib.util
import sys

from . import content_types, decoder, default_inference_handler, encoder, errors, utils

PACKAGE = "sagemaker_inference"


def make_importable() -> None:
    """Let `import sagemaker_inference` find these modules where the package itself is not installed."""
    if importlib.util.find_spec(PACKAGE) is not None:
        return
    sys.modules[PACKAGE] = sys.modules[__name__]
    for module in (content_types, decoder, default_inference_handler, encoder, errors, utils):
        sys.modules[f"{PACKAGE}.{module.__name__.rpartition('.')[2]}"] = module
