"""Writes docs/maintaining/parity.md from the table in orchestrator/local/parity."""

from pathlib import Path

from microjobs_orchestrator.local.parity.page import render
from microjobs_orchestrator.local.parity.table import TABLE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "maintaining" / "parity.md"


def main() -> None:
    PAGE.write_text(render(TABLE))


if __name__ == "__main__":
    main()
