"""Tests of image tags, and of images that push refuses. They need no engine and no registry."""

from dataclasses import replace
from pathlib import Path

import pytest

from microjobs_orchestrator.failures import CommandError, UsageError
from microjobs_orchestrator.push.destination import Destination
from microjobs_orchestrator.push.tags import Image, ImageSource, read_source, tag_images
from tests.push.conftest import REVISION, Microjobs, commit, git, make_image

OTHER_COMMIT = "f" * 40
CLEAN_SOURCE = ImageSource(REVISION)
SHORT_DIGEST = "5" * 12


def tag_image(image: Image, source: ImageSource = CLEAN_SOURCE, *, allow_dirty: bool = False) -> str:
    """Return the tag of an image."""
    (tagged_image,) = tag_images([(image, source)], allow_dirty=allow_dirty)
    return tagged_image.tag


def test_tag_is_the_short_commit() -> None:
    assert tag_image(make_image()) == REVISION[:12]


@pytest.mark.parametrize(("changes", "suffix"), [((), "-cuda"), (("README.md",), f"-cuda-dirty-{SHORT_DIGEST}")])
def test_tag_of_a_cuda_image_has_a_suffix(changes: tuple[str, ...], suffix: str) -> None:
    assert (
        tag_image(replace(make_image(), variant="cuda"), ImageSource(REVISION, changes), allow_dirty=True)
        == REVISION[:12] + suffix
    )


def test_error_for_a_cuda_image_names_the_variant() -> None:
    with pytest.raises(CommandError, match="`microjobs build serve --variant cuda`"):
        tag_image(
            replace(make_image(), variant="cuda", revision=OTHER_COMMIT),
            ImageSource(REVISION, changed_files=("shared/new.py",)),
        )


def test_tag_is_the_earlier_commit_if_the_files_are_the_same() -> None:
    assert tag_image(make_image(revision=OTHER_COMMIT)) == OTHER_COMMIT[:12]


CHANGED_FILES = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("revision", "source", "reason"),
    [
        (
            OTHER_COMMIT,
            ImageSource(REVISION, changed_files=CHANGED_FILES),
            rf"was built from revision {OTHER_COMMIT[:12]}, and HEAD, {REVISION[:12]}, has different files",
        ),
        (
            OTHER_COMMIT,
            ImageSource(REVISION, changed_files=None),
            f"was built from revision {OTHER_COMMIT[:12]}, which this clone does not have",
        ),
        (f"{REVISION}-dirty", CLEAN_SOURCE, "was built from files with uncommitted changes"),
        (REVISION, ImageSource(REVISION, CHANGED_FILES), r"have uncommitted changes \(a, b, c and 2 more\)"),
        ("unknown", CLEAN_SOURCE, "has no label with the revision"),
        ("", CLEAN_SOURCE, "has no label with the revision"),
    ],
)
def test_image_that_matches_no_commit_raises(revision: str, source: ImageSource, reason: str) -> None:
    valid_pair = (make_image("train"), CLEAN_SOURCE)
    with pytest.raises(CommandError, match=rf"microjobs/serve:dev {reason}.*: commit, then `microjobs build serve`"):
        tag_images([valid_pair, (make_image("serve", revision), source)])


@pytest.mark.parametrize(
    ("revision", "source", "tag"),
    [
        (OTHER_COMMIT, ImageSource(REVISION, changed_files=CHANGED_FILES), f"{OTHER_COMMIT[:12]}-dirty-{SHORT_DIGEST}"),
        (f"{REVISION}-dirty", ImageSource(REVISION, CHANGED_FILES), f"{REVISION[:12]}-dirty-{SHORT_DIGEST}"),
        (REVISION, ImageSource(REVISION, CHANGED_FILES), f"{REVISION[:12]}-dirty-{SHORT_DIGEST}"),
        ("", CLEAN_SOURCE, f"unknown-dirty-{SHORT_DIGEST}"),
        (REVISION, CLEAN_SOURCE, REVISION[:12]),
    ],
)
def test_allow_dirty_adds_the_digest_to_the_tag_unless_the_image_matches_a_commit(
    revision: str, source: ImageSource, tag: str
) -> None:
    assert tag_image(make_image(revision=revision), source, allow_dirty=True) == tag


def test_other_platform_raises_even_with_allow_dirty() -> None:
    with pytest.raises(CommandError, match=r"serve:dev is for linux/arm64, but SageMaker runs linux/amd64"):
        tag_image(make_image(platform="linux/arm64"), allow_dirty=True)


def test_manifest_type_that_sagemaker_refuses_raises() -> None:
    unsupported_image = replace(make_image(), media_type="application/vnd.oci.image.index.v1+json")
    with pytest.raises(CommandError, match=r"serve:dev .*oci.image.index.*`microjobs build serve` builds an image"):
        tag_image(unsupported_image, allow_dirty=True)
    tag_image(replace(make_image(), media_type="application/vnd.docker.distribution.manifest.v2+json"))


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
def test_registry_is_parsed_into_host_and_prefix(text: str, repository: str) -> None:
    destination = Destination.parse(text)
    assert destination.make_image_uri("serve", "t") == f"{repository}:t"
    assert destination.make_repository_name("serve") == repository.partition("/")[2]


@pytest.mark.parametrize("text", ["https://example.com", "team", "example.com/Team", "example.com/a//b", "a b.com", ""])
def test_invalid_registry_raises(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not HOST\[/PREFIX\]"):
        Destination.parse(text)


@pytest.mark.usefixtures("clone")
def test_unknown_job_is_refused(microjobs: Microjobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert microjobs("push", "server", "--registry", "example.com") == 2
    assert "no job server exists: choose from serve, train" in capsys.readouterr().err


def read_serve_source(clone: Path, revision: str | None = None) -> ImageSource:
    """Read the state of the files of `serve`, compared with a revision. The default revision is the clone's HEAD."""
    return read_source(clone, "serve", "cpu", revision or git(clone, "rev-parse", "HEAD"))


def test_clean_clone_has_no_changes(clone: Path) -> None:
    assert read_serve_source(clone) == ImageSource(git(clone, "rev-parse", "HEAD"))


def test_changes_include_only_files_of_the_image(clone: Path) -> None:
    for name in ("README.md", "containers/my-job/main.py", "containers/serve/README.md", "containers/serve/tests/x.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("not in the image")
    assert read_serve_source(clone).uncommitted_files == ()
    for name in ("containers/serve/new.py", "shared/new.py", "containers/Dockerfile"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("in the image")
    assert set(read_serve_source(clone).uncommitted_files) == {
        "containers/serve/new.py",
        "shared/new.py",
        "containers/Dockerfile",
    }


def test_commits_of_other_files_are_ignored(clone: Path) -> None:
    first_commit = git(clone, "rev-parse", "HEAD")
    (clone / "containers" / "train" / "new.py").write_text("in another image")
    commit(clone)
    assert read_serve_source(clone, first_commit).changed_files == ()
    (clone / "containers" / "serve" / "new.py").write_text("in the image")
    commit(clone)
    assert read_serve_source(clone, first_commit).changed_files == ("containers/serve/new.py",)


@pytest.mark.parametrize("revision", [OTHER_COMMIT, "unknown", "--output=file"])
def test_unknown_revision_has_no_list_of_files(revision: str, clone: Path) -> None:
    assert read_serve_source(clone, revision).changed_files is None
    assert not (clone / "file").exists()


def test_folder_without_git_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(
        CommandError, match=r"git cannot read the revision of .*not a git repository.*push from a clone"
    ):
        read_source(tmp_path, "serve", "cpu", OTHER_COMMIT)
