"""What is pushed under which tag, and what is refused, without engine and registry."""

from dataclasses import replace
from pathlib import Path

import pytest

from microjobs_orchestrator.failures import LauncherError, UsageError
from microjobs_orchestrator.push.plan import Destination, Image, image_uri, make_plan
from microjobs_orchestrator.push.source import Source, read_source
from tests.push.conftest import HEAD, Microjobs, commit, git, image

OTHER = "f" * 40
CLEAN = Source(HEAD)
CONTENT = "5" * 12


def planned(image: Image, source: Source = CLEAN, *, allow_dirty: bool = False) -> str:
    """The tag that an image gets."""
    (item,) = make_plan([(image, source)], allow_dirty=allow_dirty)
    return item.tag


def test_tag_is_the_short_commit() -> None:
    assert planned(image()) == HEAD[:12]


@pytest.mark.parametrize(("changes", "tag"), [((), "-cuda"), (("README.md",), f"-cuda-dirty-{CONTENT}")])
def test_cuda_image_has_a_tag_of_its_own(changes: tuple[str, ...], tag: str) -> None:
    assert planned(replace(image(), variant="cuda"), Source(HEAD, changes), allow_dirty=True) == HEAD[:12] + tag


def test_refused_cuda_image_names_its_variant() -> None:
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
        (f"{HEAD}-dirty", CLEAN, "was built from files with changes"),
        (HEAD, Source(HEAD, FILES), r"have changes that are not committed \(a, b, c and 2 more\)"),
        ("unknown", CLEAN, "does not say which revision"),
        ("", CLEAN, "does not say which revision"),
    ],
)
def test_image_that_no_commit_stands_for_is_refused(revision: str, source: Source, reason: str) -> None:
    others = (image("train"), CLEAN)
    with pytest.raises(LauncherError, match=rf"microjobs/serve:dev {reason}.*: commit, then `microjobs build serve`"):
        make_plan([others, (image("serve", revision), source)])


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
def test_allowed_dirty_tag_says_so(revision: str, source: Source, tag: str) -> None:
    assert planned(image(revision=revision), source, allow_dirty=True) == tag


def test_other_platform_is_refused_even_if_dirty_is_allowed() -> None:
    with pytest.raises(LauncherError, match=r"serve:dev is for linux/arm64: SageMaker runs linux/amd64"):
        planned(image(platform="linux/arm64"), allow_dirty=True)


def test_format_that_sagemaker_refuses_is_refused() -> None:
    index = replace(image(), media_type="application/vnd.oci.image.index.v1+json")
    with pytest.raises(LauncherError, match=r"serve:dev .*oci.image.index.*`microjobs build serve` makes one"):
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


def read(clone: Path, revision: str | None = None) -> Source:
    return read_source(clone, "serve", "cpu", revision or git(clone, "rev-parse", "HEAD"))


def test_clean_clone_has_no_changes(clone: Path) -> None:
    assert read(clone) == Source(git(clone, "rev-parse", "HEAD"))


def test_only_files_that_the_image_is_made_of_count(clone: Path) -> None:
    for name in ("README.md", "containers/my-job/main.py", "containers/serve/README.md", "containers/serve/tests/x.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("not in the image")
    assert read(clone).changes == ()
    for name in ("containers/serve/new.py", "shared/new.py", "containers/Dockerfile"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("in the image")
    assert set(read(clone).changes) == {"containers/serve/new.py", "shared/new.py", "containers/Dockerfile"}


def test_commits_of_other_files_do_not_count(clone: Path) -> None:
    first = git(clone, "rev-parse", "HEAD")
    (clone / "containers" / "train" / "new.py").write_text("another image has it")
    commit(clone)
    assert read(clone, first).since == ()
    (clone / "containers" / "serve" / "new.py").write_text("the image has it")
    commit(clone)
    assert read(clone, first).since == ("containers/serve/new.py",)


@pytest.mark.parametrize("revision", [OTHER, "unknown", "--output=file"])
def test_revision_that_the_clone_lacks_is_told_apart(revision: str, clone: Path) -> None:
    assert read(clone, revision).since is None
    assert not (clone / "file").exists()


def test_folder_without_git_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(
        LauncherError, match=r"git cannot say the revision of .*not a git repository.*push from a clone"
    ):
        read_source(tmp_path, "serve", "cpu", OTHER)
