"""Tests of image names in requests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.lifecycle.attempt import Attempt, launch_plan, prepare_plan
from microjobs_orchestrator.local.lifecycle.context import Context
from microjobs_orchestrator.local.lifecycle.events import EventQueue
from microjobs_orchestrator.local.logs import LogStream
from microjobs_orchestrator.local.runtimes.base import HostPlan, Plan
from tests.conftest import make_image_name
from tests.local.jobs.conftest import ServerParts
from tests.local.jobs.fakes import ImageBehaviour

SERVER_REGISTRY = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
SKLEARN_IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:0.23-1-cpu-py3"


def test_registry_of_the_server_is_removed_from_image_uris(parts: ServerParts) -> None:
    assert parts.context.resolve_image(f"{SERVER_REGISTRY}/model") == "model"
    assert parts.context.resolve_image("elsewhere.com/model") == "elsewhere.com/model"


def test_registry_is_not_removed_if_an_image_has_the_whole_name(parts: ServerParts) -> None:
    parts.runtime.behaviours[f"{SERVER_REGISTRY}/model"] = ImageBehaviour()
    assert parts.context.resolve_image(f"{SERVER_REGISTRY}/model") == f"{SERVER_REGISTRY}/model"


def make_context(parts: ServerParts, **settings: Any) -> Context:
    """Return a copy of the server's context with other settings."""
    return replace(parts.context, settings=replace(parts.context.settings, **settings))


def test_framework_images_are_replaced_only_if_the_setting_is_on(parts: ServerParts) -> None:
    assert parts.context.resolve_image(SKLEARN_IMAGE) == SKLEARN_IMAGE
    assert parts.context.make_image_note(SKLEARN_IMAGE) is None
    context = make_context(parts, replaces_framework_images=True)
    assert context.resolve_image(SKLEARN_IMAGE) == make_image_name("preprocess")
    assert context.resolve_image("elsewhere.com/model") == "elsewhere.com/model"


def test_aliases_take_precedence_over_framework_images(parts: ServerParts) -> None:
    context = make_context(parts, replaces_framework_images=True, aliases={"*/sagemaker-scikit-learn:*": "mine:1"})
    assert context.resolve_image(SKLEARN_IMAGE) == "mine:1"
    assert context.make_image_note(SKLEARN_IMAGE) is None


def test_log_of_each_host_states_the_substitution(parts: ServerParts, tmp_path: Path) -> None:
    context = make_context(parts, replaces_framework_images=True)
    parts.runtime.behaviours[make_image_name("preprocess")] = ImageBehaviour()
    hosts = tuple(
        HostPlan(name, make_image_name("preprocess"), tmp_path / "files" / name) for name in ("algo-1", "algo-2")
    )
    attempt = Attempt(
        "job/a",
        SKLEARN_IMAGE,
        make_plan=lambda _: Plan("job/a", hosts),
        open_stream=lambda name: LogStream(tmp_path / name),
    )
    launch_plan(context, attempt, prepare_plan(context, attempt, EventQueue()), EventQueue())
    for name in ("algo-1", "algo-2"):
        (line,) = (tmp_path / name).read_text().splitlines()
        assert f"[microjobs] {context.make_image_note(SKLEARN_IMAGE)}" in line
        assert "instead of 0.23-1, Python 3.11 instead of 3" in line


def test_log_states_what_the_runtime_reports_about_the_image(
    parts: ServerParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.runtime, "prepare", lambda image, _: f"{image} runs emulated")
    parts.runtime.behaviours["mine"] = ImageBehaviour()
    plan = Plan("job/a", (HostPlan("algo-1", "mine", tmp_path / "files"),))
    attempt = Attempt("job/a", "mine", make_plan=lambda _: plan, open_stream=lambda name: LogStream(tmp_path / name))
    launch_plan(parts.context, attempt, prepare_plan(parts.context, attempt, EventQueue()), EventQueue())
    assert (tmp_path / "algo-1").read_text().endswith("[microjobs] mine runs emulated\n")
