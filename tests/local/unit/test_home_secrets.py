"""Tests of the secrets of a home."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from microjobs_orchestrator.local.home import Home


def test_concurrent_readers_get_the_same_server_key(tmp_path: Path) -> None:
    thread_count = 8
    for number in range(5):
        home = Home(tmp_path / str(number))
        home.create()
        barrier = threading.Barrier(thread_count)

        def read_key(home: Home = home, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            return home.server_key()

        with ThreadPoolExecutor(thread_count) as pool:
            keys = {future.result() for future in [pool.submit(read_key) for _ in range(thread_count)]}
        assert keys == {home.server_key()}
