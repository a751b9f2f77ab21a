"""Tags of images, and images that may not be pushed, without an engine or a registry."""

from dataclasses import replace
from pathlib import Path

import pytest

from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.push.destination import Destination, image_uri
from microjobs_orchestrator.push.source import Source, read_source
from microjobs_orchestrator.push.tags import Image, tag_images
from tests.push.conftest import HEAD, Microjobs, commit, git, image

OTHER = "f" * 40
CLEAN = Source(HEAD)
CONTENT = "5" * 12


def planned(image: Image, source: Source = CLEAN, *, allow_dirty: bool = False) -> str:
    """Return the tag of an image."""
    (item,) = tag_images([(image, source)], allow_dirty=allow_dirty)
    return item.tag


def test_tag_is_the_short_commit() -> None:
    assert planned(image()) == HEAD[:12]


@pytest.mark.parametrize(("changes", "tag"), [((), "-cuda"), (("README.md",), f"-cuda-dirty-{CONTENT}")])
def test_tag_of_a_cuda_image_has_a_suffix(changes: tuple[str, ...], tag: str) -> None:
    assert planned(replace(image(), variant="cuda"), Source(HEAD, changes), allow_dirty=True) == HEAD[:12] + tag


def test_remedy_for_a_cuda_image_has_the_variant() -> None:
    with pytest.raises(LauncherError, match="`microjobs build serve --variant cuda`"):
        planned(replace(image(), variant="cuda", revision=OTHER), Source(HEAD, since=("shared/new.py",)))


def test_image_of_an_earlier_commit_with_the_same_files_keeps_its_tag() -> None:
    assert planned(image(revision=OTHER)) == OTHER[:12]


FILES = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("revision", "source", "reason"),
    [
        (OTHER, Source(HEAD, since=FILES), rf"was built from revision {OTHER[:12]}, and HEAD, {HEAD[:12]}, has other"),
        (OTHER, Source(HEAD, since=None), f"was built from revision {OTHER[:12]}, which this clone does not have"),
        (f"{HEAD}-dirty", CLEAN, "was built from files with uncommitted changes"),
        (HEAD, Source(HEAD, FILES), r"have uncommitted changes \(a, b, c and 2 more\)"),
        ("unknown", CLEAN, "has no label with the revision"),
        ("", CLEAN, "has no label with the revision"),
    ],
)
def test_image_of_no_commit_raises(revision: str, source: Source, reason: str) -> None:
    others = (image("train"), CLEAN)
    with pytest.raises(LauncherError, match=rf"microjobs/serve:dev {reason}.*: commit, then `microjobs build serve`"):
        tag_images([others, (image("serve", revision), source)])


@pytest.mark.parametrize(
    ("revision", "source", "tag"),
    [
        (OTHER, Source(HEAD, since=FILES), f"{OTHER[:12]}-dirty-{CONTENT}"),
        (f"{HEAD}-dirty", Source(HEAD, FILES), f"{HEAD[:12]}-dirty-{CONTENT}"),
        (HEAD, Source(HEAD, FILES), f"{HEAD[:12]}-dirty-{CONTENT}"),
        ("", CLEAN, f"unknown-dirty-{CONTENT}"),
        (HEAD, CLEAN, HEAD[:12]),
    ],
)
def test_allow_dirty_adds_the_digest_to_the_tag(revision: str, source: Source, tag: str) -> None:
    assert planned(image(revision=revision), source, allow_dirty=True) == tag


def test_other_platform_raises_even_if_dirty_is_allowed() -> None:
    with pytest.raises(LauncherError, match=r"serve:dev is for linux/arm64, but SageMaker runs linux/amd64"):
        planned(image(platform="linux/arm64"), allow_dirty=True)


def test_manifest_type_that_sagemaker_refuses_raises() -> None:
    index = replace(image(), media_type="application/vnd.oci.image.index.v1+json")
    with pytest.raises(LauncherError, match=r"serve:dev .*oci.image.index.*`microjobs build serve` builds one"):
        planned(index, allow_dirty=True)
    planned(replace(image(), media_type="application/vnd.docker.distribution.manifest.v2+json"))


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("registry.example.com", "registry.example.com/microjobs/serve"),
        ("registry.example.com:5000/a/b-c", "registry.example.com:5000/a/b-c/serve"),
        ("localhost/team", "localhost/team/serve"),
        ("build:5000", "build:5000/microjobs/serve"),
        ("[::1]:5000", "[::1]:5000/microjobs/serve"),
    ],
)
def test_registry_has_a_host_and_a_prefix(text: str, repository: str) -> None:
    destination = Destination.parse(text)
    assert image_uri(destination, "serve", "t") == f"{repository}:t"
    assert destination.name("serve") == repository.partition("/")[2]


@pytest.mark.parametrize("text", ["https://example.com", "team", "example.com/Team", "example.com/a//b", "a b.com", ""])
def test_invalid_registry_raises(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not HOST\[/PREFIX\]"):
        Destination.parse(text)


@pytest.mark.usefixtures("clone")
def test_unknown_job_raises(microjobs: Microjobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert microjobs("push", "server", "--registry", "example.com") == 2
    assert "no job server: there are serve, train" in capsys.readouterr().err


def read(clone: Path, revision: str | None = None) -> Source:
    return read_source(clone, "serve", "cpu", revision or git(clone, "rev-parse", "HEAD"))


def test_clean_clone_has_no_changes(clone: Path) -> None:
    assert read(clone) == Source(git(clone, "rev-parse", "HEAD"))


def test_changes_include_only_files_of_the_image(clone: Path) -> None:
    for name in ("README.md", "containers/my-job/main.py", "containers/serve/README.md", "containers/serve/tests/x.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("not in the image")
    assert read(clone).changes == ()
    for name in ("containers/serve/new.py", "shared/new.py", "containers/Dockerfile"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("in the image")
    assert set(read(clone).changes) == {"containers/serve/new.py", "shared/new.py", "containers/Dockerfile"}


def test_commits_of_other_files_are_ignored(clone: Path) -> None:
    first = git(clone, "rev-parse", "HEAD")
    (clone / "containers" / "train" / "new.py").write_text("another image has it")
    commit(clone)
    assert read(clone, first).since == ()
    (clone / "containers" / "serve" / "new.py").write_text("the image has it")
    commit(clone)
    assert read(clone, first).since == ("containers/serve/new.py",)


@pytest.mark.parametrize("revision", [OTHER, "unknown", "--output=file"])
def test_unknown_revision_has_no_files(revision: str, clone: Path) -> None:
    assert read(clone, revision).since is None
    assert not (clone / "file").exists()


def test_folder_without_git_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(
        LauncherError, match=r"git cannot read the revision of .*not a git repository.*push from a clone"
    ):
        read_source(tmp_path, "serve", "cpu", OTHER)
