"""The price table: `prices.toml` beside this, and the user's own prices over it."""

import tomllib
from pathlib import Path

from microjobs_orchestrator.aws.settings import Settings

TABLE = Path(__file__).with_name("prices.toml")


def prices(settings: Settings) -> dict[str, float]:
    """Dollars an hour by instance type, in the settings' region."""
    table: dict[str, dict[str, float]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {**table.get(settings.region, {}), **settings.prices}
