"""Tests of the secrets of a home."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from microjobs_orchestrator.local.home import Home


def test_jobs_that_start_at_the_same_time_get_one_secret(tmp_path: Path) -> None:
    threads = 8
    for number in range(5):
        home = Home(tmp_path / str(number))
        home.create()
        barrier = threading.Barrier(threads)

        def read(home: Home = home, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            return home.server_key()

        with ThreadPoolExecutor(threads) as pool:
            keys = {future.result() for future in [pool.submit(read) for _ in range(threads)]}
        assert keys == {home.server_key()}
