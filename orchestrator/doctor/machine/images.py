"""The images of the jobs: whether they are built, from the current code."""

from collections.abc import Iterator
from dataclasses import dataclass

from microjobs_orchestrator import images
from microjobs_orchestrator.doctor.check import Finding
from microjobs_orchestrator.failures import LauncherError
from microjobs_orchestrator.images import local_image


@dataclass(frozen=True)
class Images:
    name: str = "the images"

    def run(self) -> Iterator[Finding]:
        try:
            jobs = images.jobs()
        except LauncherError as error:
            yield Finding("problem", str(error), "git clone https://github.com/microjobs/microjobs")
            return
        labels = images.labels()
        missing = [job for job in jobs if local_image(job) not in labels]
        stale = [job for job in jobs if is_stale(job, labels.get(local_image(job), {}))]
        if missing:
            message = f"images are not built: {', '.join(missing)}"
            yield Finding("problem", message, f"microjobs build {' '.join(missing)}")
        if stale:
            message = f"images are older than their code: {', '.join(stale)}"
            yield Finding("note", message, f"microjobs build {' '.join(stale)}")
        if not missing and not stale:
            yield Finding("ok", f"{len(jobs)} images, built from the current code")


def is_stale(job: str, labels: dict[str, str]) -> bool:
    """Return whether an image was built from other files than the repository has now."""
    revision = labels.get(images.REVISION, "").removesuffix("-dirty")
    return bool(revision) and bool(images.changed_since(job, revision))
