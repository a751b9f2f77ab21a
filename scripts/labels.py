"""Writes each job's hyperparameters into its image.yml, as a label of the image.

A build cannot compute a label. Therefore, image.yml contains the label, and a test compares the label with the
job's hyperparameters.
"""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "shared"))

from microjobs.hyperparameters import describe  # noqa: E402
from microjobs.run import make_package_name  # noqa: E402

LABEL = "org.microjobs.hyperparameters"
LABEL_LINE = re.compile(rf"^( +){re.escape(LABEL)}:.*$", re.MULTILINE)


def describe_hyperparameters(job_folder: Path) -> list[dict[str, Any]]:
    """Return the description of the job's hyperparameters; empty if the job declares none."""
    package = make_package_name(job_folder.name)
    if not (job_folder / package / "hyperparameters.py").exists():
        return []
    sys.path.insert(0, str(job_folder))
    return describe(importlib.import_module(f"{package}.hyperparameters").Hyperparameters)


def make_label_line(description: list[dict[str, Any]]) -> str:
    """Return the label as a line of YAML, with escapes for YAML and Compose."""
    text = json.dumps(description).replace("'", "''").replace("$", "$$")
    return f"{LABEL}: '{text}'"


def main() -> None:
    for path in sorted((REPOSITORY / "containers").glob("*/image.yml")):
        description = describe_hyperparameters(path.parent)
        text = path.read_text()
        if not description:
            continue
        if LABEL_LINE.search(text) is None:
            raise SystemExit(f"{path} has no line for {LABEL} below build.labels: add one")
        line = make_label_line(description).replace("\\", r"\\")
        path.write_text(LABEL_LINE.sub(rf"\g<1>{line}", text))


if __name__ == "__main__":
    main()
