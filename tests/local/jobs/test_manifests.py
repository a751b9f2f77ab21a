"""Tests of invalid manifests."""

import pytest

from microjobs_orchestrator.local.lifecycle import inputs
from microjobs_orchestrator.local.runtimes.base import CannotRunError
from tests.local.jobs.conftest import ServerParts


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "", "\x00", "NaN", '[{"prefix": 5}]'])
def test_invalid_manifest_is_a_client_error(parts: ServerParts, content: str) -> None:
    uri = parts.put("in/manifest", content.encode())
    with pytest.raises(CannotRunError, match=r"^ClientError: Data download failed: manifest s3://bucket/in/manifest"):
        inputs.list_manifest_objects(parts.context.store, uri)
    with pytest.raises(CannotRunError, match=r"^ClientError: Data download failed: manifest s3://bucket/in/manifest"):
        # An empty augmented manifest is valid, so `{` replaces it.
        inputs.read_records(parts.context.store, parts.put("in/manifest", (content or "{").encode()), ["a"])
