"""Tests of image names in requests."""

from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import Model

OWN = "000000000000.dkr.ecr.us-east-1.amazonaws.com"


def test_registry_of_the_server_is_removed_from_image_uris(parts: ServerParts) -> None:
    assert parts.context.image(f"{OWN}/model") == "model"
    assert parts.context.image("elsewhere.com/model") == "elsewhere.com/model"


def test_registry_is_not_removed_if_an_image_has_the_whole_name(parts: ServerParts) -> None:
    parts.runtime.models[f"{OWN}/model"] = Model()
    assert parts.context.image(f"{OWN}/model") == f"{OWN}/model"
