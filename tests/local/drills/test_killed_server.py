"""Test that a server that is killed at random times loses no resource.

`MICROJOBS_DRILL_ROUNDS` sets the number of rounds; `MICROJOBS_DRILL_SEED` repeats a failed run.
"""

import os
import secrets
import tempfile
from pathlib import Path

import docker
import pytest

from microjobs_orchestrator.local.home import Home
from tests.local.drills.drill import Drill
from tests.local.drills.image import build_drill_image

ROUNDS = int(os.environ.get("MICROJOBS_DRILL_ROUNDS", "2"))
SEED = int(os.environ.get("MICROJOBS_DRILL_SEED") or secrets.randbelow(1 << 32))


@pytest.mark.engine
@pytest.mark.timeout(120 + 90 * ROUNDS)
def test_killed_server_loses_nothing() -> None:
    print(f"seed: MICROJOBS_DRILL_SEED={SEED}, {ROUNDS} rounds")
    engine = docker.from_env()
    # The path of `tmp_path` is too long for the Unix sockets of MLflow servers.
    with build_drill_image() as image, tempfile.TemporaryDirectory() as folder:
        drill = Drill(Home(Path(folder) / "home"), image, SEED, engine)
        try:
            for number in range(ROUNDS):
                print(f"round {number}", flush=True)
                drill.run_round()
            drill.stop_and_check()
        finally:
            drill.clean_up()
            engine.close()
