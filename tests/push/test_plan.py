"""What is pushed under which tag, and what is refused, without engine and registry."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.failures import LauncherError, UsageError
from orchestrator.push.plan import Destination, image_uri, make_plan
from orchestrator.push.source import Source, read_source
from tests.push.conftest import HEAD, Microjobs, commit, git, image

OTHER = "f" * 40
CLEAN = Source(HEAD)
CONTENT = "5" * 12


def test_tag_is_the_short_commit() -> None:
    (item,) = make_plan([image()], CLEAN)
    assert item.tag == HEAD[:12]


@pytest.mark.parametrize(("changes", "tag"), [((), "-cuda"), (("README.md",), f"-cuda-dirty-{CONTENT}")])
def test_cuda_image_has_a_tag_of_its_own(changes: tuple[str, ...], tag: str) -> None:
    (item,) = make_plan([replace(image(), variant="cuda")], Source(HEAD, changes), allow_dirty=True)
    assert item.tag == HEAD[:12] + tag


def test_refused_cuda_image_names_its_variant() -> None:
    with pytest.raises(LauncherError, match="`microjobs build serve --variant cuda`"):
        make_plan([replace(image(), variant="cuda", revision=OTHER)], CLEAN)


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        (OTHER, f"was built from revision {OTHER[:12]}, HEAD is {HEAD[:12]}"),
        (f"{HEAD}-dirty", "was built from a tree with changes"),
        ("unknown", "does not say which revision"),
        ("", "does not say which revision"),
    ],
)
def test_image_that_no_commit_stands_for_is_refused(revision: str, reason: str) -> None:
    with pytest.raises(LauncherError, match=rf"microjobs/serve:dev {reason}.*`microjobs build serve`"):
        make_plan([image("train"), image("serve", revision)], CLEAN)


def test_changed_tree_is_refused_with_its_files() -> None:
    source = Source(HEAD, ("a", "b", "c", "d", "e"))
    with pytest.raises(LauncherError, match=r"not committed \(a, b, c and 2 more\): commit"):
        make_plan([image()], source)


@pytest.mark.parametrize(
    ("revision", "changes", "tag"),
    [
        (OTHER, (), f"{OTHER[:12]}-dirty-{CONTENT}"),
        (f"{HEAD}-dirty", ("a",), f"{HEAD[:12]}-dirty-{CONTENT}"),
        (HEAD, ("a",), f"{HEAD[:12]}-dirty-{CONTENT}"),
        ("", (), f"unknown-dirty-{CONTENT}"),
        (HEAD, (), HEAD[:12]),
    ],
)
def test_allowed_dirty_tag_says_so(revision: str, changes: tuple[str, ...], tag: str) -> None:
    (item,) = make_plan([image(revision=revision)], Source(HEAD, changes), allow_dirty=True)
    assert item.tag == tag


def test_other_platform_is_refused_even_if_dirty_is_allowed() -> None:
    with pytest.raises(LauncherError, match=r"serve:dev is for linux/arm64: SageMaker runs linux/amd64"):
        make_plan([image(platform="linux/arm64")], CLEAN, allow_dirty=True)


def test_format_that_sagemaker_refuses_is_refused() -> None:
    index = replace(image(), media_type="application/vnd.oci.image.index.v1+json")
    with pytest.raises(LauncherError, match=r"serve:dev .*oci.image.index.*`microjobs build serve` makes one"):
        make_plan([index], CLEAN, allow_dirty=True)
    make_plan([replace(image(), media_type="application/vnd.docker.distribution.manifest.v2+json")], CLEAN)


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
def test_registry_is_a_host_and_a_prefix(text: str, repository: str) -> None:
    destination = Destination.parse(text)
    assert image_uri(destination, "serve", "t") == f"{repository}:t"
    assert destination.name("serve") == repository.partition("/")[2]


@pytest.mark.parametrize("text", ["https://example.com", "team", "example.com/Team", "example.com/a//b", "a b.com", ""])
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no HOST\[/PREFIX\]"):
        Destination.parse(text)


@pytest.mark.usefixtures("clone")
def test_job_that_there_is_not_is_refused(microjobs: Microjobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert microjobs("push", "server", "--registry", "example.com") == 2
    assert "no job server: there are serve, train" in capsys.readouterr().err


def test_clean_clone_has_no_changes(clone: Path) -> None:
    assert read_source(clone) == Source(git(clone, "rev-parse", "HEAD"))


def test_changes_are_what_is_edited_or_gets_into_images(clone: Path) -> None:
    (clone / "README.md").write_text("one")
    commit(clone)
    (clone / "README.md").write_text("two")
    (clone / "notes.txt").write_text("no image has it")
    (clone / "containers" / "serve" / "new.py").write_text("an image has it")
    assert read_source(clone).changes == ("README.md", "containers/serve/new.py")


def test_folder_without_git_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(
        LauncherError, match=r"git cannot say the revision of .*not a git repository.*push from a clone"
    ):
        read_source(tmp_path)
