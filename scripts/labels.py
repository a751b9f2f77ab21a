"""Writes each job's hyperparameters into its image.yml, from which the image gets them as a label.

A label cannot be computed inside a build, so it stands in the file; a test compares it with hyperparameters.py.
"""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "shared"))

from microjobs.hyperparameters import describe  # noqa: E402

LABEL = "org.microjobs.hyperparameters"
LINE = re.compile(rf"^( +){re.escape(LABEL)}:.*$", re.MULTILINE)


def declared(job: Path) -> list[dict[str, Any]]:
    """What the job's hyperparameters.py declares; empty if it has none."""
    path = job / "hyperparameters.py"
    if not path.exists():
        return []
    spec = importlib.util.spec_from_file_location(f"hyperparameters_{job.name.replace('-', '_')}", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return describe(module.Hyperparameters)


def label_line(description: list[dict[str, Any]]) -> str:
    """The label as a line of YAML, with what YAML and compose would interpret escaped."""
    text = json.dumps(description).replace("'", "''").replace("$", "$$")
    return f"{LABEL}: '{text}'"


def main() -> None:
    for path in sorted((REPOSITORY / "containers").glob("*/image.yml")):
        description = declared(path.parent)
        text = path.read_text()
        if not description:
            continue
        if LINE.search(text) is None:
            raise SystemExit(f"{path}: has no line for {LABEL} below build.labels; add one")
        line = label_line(description).replace("\\", r"\\")
        path.write_text(LINE.sub(rf"\g<1>{line}", text))


if __name__ == "__main__":
    main()
