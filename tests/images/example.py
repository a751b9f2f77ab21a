"""What a job's folder says of itself for the tests that every image inherits: `tests/example.py` in the folder."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from microjobs.contract import Layout


@dataclass(frozen=True)
class Example:
    """A good run and a bad one.

    arguments: what follows the image's name: `train`, `serve`, or the processing job's own.
    prepare: writes the input files and configuration of a good run.
    spoil: turns them into a bad run, which ends with exit code 2.
    reason: words of the bad run's failure file.
    artifacts: files below the contract's root after a good run; a serving image has none.
    size_limit: megabytes that the CPU image may weigh, base included.
    """

    arguments: list[str]
    prepare: Callable[[Layout], None]
    spoil: Callable[[Layout], None]
    reason: str
    artifacts: tuple[str, ...] = ()
    size_limit: int | None = None

    @property
    def serves(self) -> bool:
        return self.arguments == ["serve"]


def load_example(folder: Path) -> Example:
    path = folder / "tests" / "example.py"
    assert path.exists(), f"{folder.name} has no tests/example.py: the inherited tests need a good and a bad run"
    spec = importlib.util.spec_from_file_location(f"example_{folder.name.replace('-', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    example: Example = module.EXAMPLE
    return example
