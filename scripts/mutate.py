"""Makes small changes to a module and reports those that its tests miss. `make mutate/PATH` calls this.

    python scripts/mutate.py PATH --tests "tests/unit/test_x.py …" [--count 40] [--seed 0]

The changes are made in a copy of the work tree. Exit code 1: the tests missed some changes.
"""

import argparse
import itertools
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import chdir
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome

REPOSITORY = Path(__file__).resolve().parent.parent

IMPLAUSIBLE_OPERATORS = re.compile(
    r"BitOr_|_(Pow|RShift|LShift|BitOr|BitAnd|BitXor)$|_(Eq|NotEq|Is|IsNot)_(Lt|LtE|Gt|GtE|Is|Eq)$"
)
"""Matches the names of operators, Cosmic Ray's kinds of changes, that are left out: they change type hints, or make
changes that are not plausible mistakes."""

TIMEOUT_FACTOR = 5
ADDITIONAL_TIMEOUT_SECONDS = 20
"""The tests of a change may take TIMEOUT_FACTOR times as long as the tests without a change, plus these seconds. If
they take longer, the change counts as detected."""


def main() -> int:
    options = parse_arguments()
    test_command = shlex.join([sys.executable, "-m", "pytest", "-x", "-q", *shlex.split(options.tests)])
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder, chdir(copy_work_tree(Path(folder))):
        # Tests must import the copy, not the installed package, which is the work tree itself.
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, str(Path(folder) / "shared")])
        seconds = run_baseline(test_command)
        mutations = sample(find_mutations(options.path), options.count, options.seed, options.path.read_text())
        print(f"{len(mutations)} changes of {options.path}, about {seconds * len(mutations) / 60:.0f} min", flush=True)
        timeout = seconds * TIMEOUT_FACTOR + ADDITIONAL_TIMEOUT_SECONDS
        survivors = [
            diff
            for number, item in enumerate(mutations, 1)
            if (diff := try_mutation(item, test_command, timeout, number))
        ]
    print(f"\n{len(mutations) - len(survivors)} of {len(mutations)} changes were detected")
    return 1 if survivors else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Report small changes of a module that its tests miss.")
    parser.add_argument("path", type=Path, help="module, relative to the repository")
    parser.add_argument("--tests", required=True, help="arguments for pytest: the tests that should detect changes")
    parser.add_argument("--count", type=int, default=40, help="changes to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice (default: %(default)s)")
    options = parser.parse_args()
    if not (REPOSITORY / options.path).is_file():
        parser.error(f"{options.path} is not a file in {REPOSITORY}")
    return options


def copy_work_tree(folder: Path) -> Path:
    """Copy tracked and untracked files, except those that git ignores. Return the folder."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    file_list = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, file_list.split("\0")):
        if (REPOSITORY / name).is_file() or (REPOSITORY / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name, follow_symlinks=False)
    return folder


def run_baseline(test_command: str) -> float:
    """Run the tests without a change, and return the seconds that they take. Exit if they fail."""
    start_time = time.monotonic()
    outcome, output = run_tests(test_command, timeout=600)
    if outcome is not TestOutcome.SURVIVED:
        sys.exit(f"The tests fail without any change:\n{output[-3000:]}")
    return time.monotonic() - start_time


def find_mutations(path: Path) -> list[MutationSpec]:
    with use_db(":memory:", WorkDB.Mode.create) as database:
        init([path], database, {})
        mutations = [mutation for item in database.work_items for mutation in item.mutations]
    return [mutation for mutation in mutations if not IMPLAUSIBLE_OPERATORS.search(mutation.operator_name)]


def is_valid(text: str, mutation: MutationSpec) -> bool:
    """Return whether a mutation leaves valid Python: some operators also change the `*` of arguments."""
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    try:
        compile(mutate_code(text, operator, mutation.occurrence) or "", "", "exec")
    except SyntaxError:
        return False
    return True


def sample(mutations: Iterable[MutationSpec], count: int, seed: int, text: str) -> list[MutationSpec]:
    """Choose valid mutations of a text at random, the same ones for the same seed, in the order of its lines."""
    candidates = sorted(mutations, key=lambda item: (item.start_pos, item.operator_name, item.occurrence))
    shuffled = random.Random(seed).sample(candidates, len(candidates))  # noqa: S311 - no secret
    chosen_mutations = itertools.islice((mutation for mutation in shuffled if is_valid(text, mutation)), count)
    return sorted(chosen_mutations, key=lambda item: item.start_pos)


def try_mutation(mutation: MutationSpec, test_command: str, timeout: float, number: int) -> str:
    """Apply a mutation and run the tests; return its diff if they pass, else an empty text."""
    result = mutate_and_test([mutation], test_command, timeout)
    survived = result.test_outcome is TestOutcome.SURVIVED
    print(f"{number:4} line {mutation.start_pos[0]:<5} {'missed' if survived else 'detected'}", flush=True)
    if survived:
        print(result.diff, flush=True)
    return result.diff if survived else ""


if __name__ == "__main__":
    sys.exit(main())
