"""Examples of jobs, for the tests of all images. The file `tests/example.py` in a job's folder defines the example."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from microjobs.contract import Layout


@dataclass(frozen=True)
class Example:
    """A run of a job that succeeds, and a run that fails. For an image that serves, a run is a server.

    arguments: the arguments after the image's name: `train`, `serve`, or those of the processing job.
    prepare: writes the input files and the configuration of the successful run.
    corrupt: changes the files so that the run fails with exit code 2.
    expected_error: text that the failure file then contains.
    artifacts: files below the contract's root after the successful run; a serving image has none.
    max_megabytes: maximum size of the CPU image, with its base; None for no limit.
    """

    arguments: list[str]
    prepare: Callable[[Layout], None]
    corrupt: Callable[[Layout], None]
    expected_error: str
    artifacts: tuple[str, ...] = ()
    max_megabytes: int | None = None

    @property
    def is_server(self) -> bool:
        return self.arguments == ["serve"]


def load_example(folder: Path) -> Example:
    path = folder / "tests" / "example.py"
    assert path.exists(), f"{path} does not exist: the tests of all images need examples of the job"
    spec = importlib.util.spec_from_file_location(f"example_{folder.name.replace('-', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    example: Example = module.EXAMPLE
    return example
