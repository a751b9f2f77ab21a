"""A SQLite file that all threads of the server share."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]


class Database:
    """One connection for all threads.

    When a method or a transaction has ended, its changes remain even if the server is killed.
    A failure of the machine can lose the last changes, but does not damage the file.

    Args:
        schema: statements that create the tables; they run at each start.
    """

    def __init__(self, path: Path, schema: str = "") -> None:
        self.lock = threading.RLock()
        self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + schema)

    def close(self) -> None:
        with self.lock:
            self.connection.close()

    def select(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        with self.lock:
            return self.connection.execute(statement, values).fetchall()

    def change(self, statement: str, values: Sequence[object] = ()) -> None:
        with self.lock:
            self.connection.execute(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Apply all changes of the block, or none if it raises an error. A block may be part of another block."""
        with self.lock:
            if self.connection.in_transaction:
                yield self.connection
                return
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")
