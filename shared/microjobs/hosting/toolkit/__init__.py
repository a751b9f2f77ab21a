"""The parts of the package `sagemaker-inference` that users' code imports: encoders, decoders, errors, content types.

They behave as in version 1.10.1, except that they neither pickle nor unpickle objects. Users' code imports them by the
name of the package. The package itself is not installed, because it requires scipy, and because it unpickles requests.
"""

import importlib.util
import sys

from . import content_types, decoder, default_inference_handler, encoder, errors, utils

PACKAGE = "sagemaker_inference"


def make_package_importable() -> None:
    """Make `import sagemaker_inference` find these modules, unless the package itself is installed."""
    if importlib.util.find_spec(PACKAGE) is not None:
        return
    sys.modules[PACKAGE] = sys.modules[__name__]
    for module in (content_types, decoder, default_inference_handler, encoder, errors, utils):
        sys.modules[f"{PACKAGE}.{module.__name__.rpartition('.')[2]}"] = module
