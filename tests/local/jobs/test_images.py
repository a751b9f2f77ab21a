"""The names of images in requests."""

from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import Model

OWN = "000000000000.dkr.ecr.us-east-1.amazonaws.com"


def test_repository_uri_of_an_engines_image_is_that_image(parts: ServerParts) -> None:
    assert parts.context.image(f"{OWN}/model") == "model"
    assert parts.context.image("elsewhere.com/model") == "elsewhere.com/model"


def test_image_that_is_tagged_with_the_registry_is_taken_by_that_name(parts: ServerParts) -> None:
    parts.runtime.models[f"{OWN}/model"] = Model()
    assert parts.context.image(f"{OWN}/model") == f"{OWN}/model"
