"""Pushes to a real registry, which requires a login and allows tags to be overwritten."""

import json
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from microjobs_orchestrator.local.home import Home
from microjobs_orchestrator.push import pushed_images
from microjobs_orchestrator.push.destination import Destination
from microjobs_orchestrator.push.engine import UploadProgress
from tests.push.conftest import LoadImage, Microjobs, commit, git
from tests.push.proxy import Proxy
from tests.registry import PASSWORD, LocalRegistry

pytestmark = pytest.mark.engine

Capture = pytest.CaptureFixture[str]


def test_printed_digest_can_be_pulled(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, capsys: Capture
) -> None:
    image = load_image("serve")
    assert microjobs("push", "serve", "--registry", registry.host) == 0
    uri = capsys.readouterr().out.strip()
    repository, digest = uri.split("@")
    assert repository == f"{registry.host}/microjobs/serve"
    client = docker.from_env()
    try:
        pulled = client.api.pull(repository, digest, auth_config={"username": "anna", "password": PASSWORD})
        assert digest in pulled
        assert client.images.get(uri).id == image
    finally:
        client.close()


def test_tag_is_the_commit(microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, clone: Path) -> None:
    load_image("serve")
    assert microjobs("push", "serve", "--registry", f"{registry.host}/some/team") == 0
    assert registry.list_tags("some/team/serve") == [git(clone, "rev-parse", "HEAD")[:12]]


def test_all_jobs_are_pushed_and_saved(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, clone: Path, capsys: Capture
) -> None:
    image = load_image("serve")
    load_image("train")
    assert microjobs("push", "--registry", registry.host) == 0
    destination = Destination(registry.host)
    home = Home.from_environment()
    saved = [pushed_images.load(home)[str(destination)][job] for job in ("serve", "train")]
    assert [item.uri for item in saved] == capsys.readouterr().out.split()
    assert saved[0].image == image
    assert saved[0].revision == git(clone, "rev-parse", "HEAD")


def test_second_push_sends_nothing(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, capsys: Capture
) -> None:
    load_image("serve")
    assert microjobs("push", "serve", "--registry", registry.host) == 0
    first_output = capsys.readouterr()
    assert microjobs("push", "serve", "--registry", registry.host) == 0
    second_output = capsys.readouterr()
    assert second_output.out == first_output.out
    assert "is already in the registry" in second_output.err
    assert "is already in the registry" not in first_output.err


def test_tag_is_never_overwritten(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, capsys: Capture, clone: Path
) -> None:
    load_image("serve")
    assert microjobs("push", "serve", "--registry", registry.host) == 0
    digest = capsys.readouterr().out.strip().split("@")[1]
    load_image("serve")
    load_image("train")
    assert microjobs("push", "--registry", registry.host) == 1
    assert f"already belongs to image {digest}" in capsys.readouterr().err
    tag = git(clone, "rev-parse", "HEAD")[:12]
    assert registry.get(f"microjobs/serve/manifests/{tag}").headers["Docker-Content-Digest"] == digest
    assert registry.list_tags("microjobs/train") == []


def test_only_missing_layers_are_sent(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, clone: Path, capsys: Capture
) -> None:
    shared_layer = secrets.token_bytes(1000)
    load_image("serve", shared_layer, b"code")
    assert microjobs("push", "serve", "--registry", registry.host) == 0
    assert "layers pushed 2, already in the registry 0" in capsys.readouterr().err
    commit(clone)
    load_image("serve", shared_layer, b"other code")
    assert microjobs("push", "serve", "--registry", registry.host) == 0
    assert "layers pushed 1, already in the registry 1" in capsys.readouterr().err


def test_dirty_tag_contains_the_digest(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, clone: Path, capsys: Capture
) -> None:
    (clone / "containers" / "serve" / "main.py").write_text("pass\n")
    head = git(clone, "rev-parse", "HEAD")
    image = load_image("serve", revision=f"{head}-dirty")
    assert microjobs("push", "serve", "--registry", registry.host) == 1
    assert "containers/serve/main.py" in capsys.readouterr().err
    assert registry.list_tags("microjobs/serve") == []
    assert microjobs("push", "serve", "--registry", registry.host, "--allow-dirty") == 0
    assert registry.list_tags("microjobs/serve") == [f"{head[:12]}-dirty-{image.removeprefix('sha256:')[:12]}"]


def test_image_of_another_platform_is_not_pushed(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, capsys: Capture
) -> None:
    load_image("serve", architecture="arm64")
    assert microjobs("push", "serve", "--registry", registry.host, "--allow-dirty") == 1
    assert "is for linux/arm64, but SageMaker runs linux/amd64" in capsys.readouterr().err


def test_error_for_a_missing_image_names_the_remedy(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, capsys: Capture
) -> None:
    load_image("train")
    assert microjobs("push", "--registry", registry.host) == 1
    assert "/serve:dev is not built: `microjobs build serve` builds it" in capsys.readouterr().err
    assert registry.list_tags("microjobs/train") == []


def test_wrong_password_sends_nothing(
    microjobs: Microjobs,
    load_image: LoadImage,
    registry: LocalRegistry,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_image("serve")
    monkeypatch.setenv("MICROJOBS_REGISTRY_PASSWORD", "wrong")
    assert microjobs("push", "serve", "--registry", registry.host) == 1
    assert f"401 Unauthorized for repository microjobs/serve: `docker login {registry.host}`" in capsys.readouterr().err
    assert registry.list_tags("microjobs/serve") == []


def test_login_of_the_docker_client_is_used(
    microjobs: Microjobs,
    load_image: LoadImage,
    registry: LocalRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_image("serve")
    for name in ("MICROJOBS_REGISTRY_USER", "MICROJOBS_REGISTRY_PASSWORD"):
        monkeypatch.delenv(name)
    (tmp_path / "docker").mkdir()
    login = {"auths": {registry.host: {"auth": "YW5uYTpjb3JyZWN0IGhvcnNl"}}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps(login))
    assert microjobs("push", "serve", "--registry", registry.host) == 0


def test_password_is_not_stored(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry, tmp_path: Path, capsys: Capture
) -> None:
    load_image("serve")
    assert microjobs("push", "serve", "--registry", registry.host) == 0
    output = "".join(capsys.readouterr())
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not (tmp_path / "docker").exists()
    assert [path for path in files if PASSWORD in path.read_text()] == []
    assert PASSWORD not in output


def test_push_leaves_no_name_of_the_registry_in_the_engine(
    microjobs: Microjobs, load_image: LoadImage, registry: LocalRegistry
) -> None:
    image = load_image("serve")
    assert microjobs("push", "serve", "--registry", registry.host) == 0
    client = docker.from_env()
    try:
        assert [name for name in client.images.get(image).tags if registry.host in name] == []
    finally:
        client.close()


def test_push_after_a_broken_connection_sends_the_missing_layers(
    microjobs: Microjobs,
    load_image: LoadImage,
    registry: LocalRegistry,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_layer_sent = threading.Event()
    update = UploadProgress.update

    def update_and_watch(upload: UploadProgress, event: Mapping[str, Any]) -> None:
        update(upload, event)
        if upload.sent_layer_count:
            small_layer_sent.set()

    monkeypatch.setattr(UploadProgress, "update", update_and_watch)
    proxy = Proxy(registry.port, max_bytes=1_000_000, before_break=lambda: small_layer_sent.wait(10))
    try:
        load_image("serve", b"small", secrets.token_bytes(4_000_000))
        assert microjobs("push", "serve", "--registry", f"127.0.0.1:{proxy.port}") == 1
        output = capsys.readouterr()
        assert "failed with 1 of 2 layers in the registry" in output.err
        assert "`microjobs push serve` sends the missing layers" in output.err
        assert output.out == ""
        proxy.repair()
        assert microjobs("push", "serve", "--registry", f"127.0.0.1:{proxy.port}") == 0
        assert "layers pushed 1, already in the registry 1" in capsys.readouterr().err
    finally:
        proxy.close()
