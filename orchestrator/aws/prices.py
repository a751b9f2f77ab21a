"""The price table, `prices.toml`, and the prices of the settings, which override it."""

import tomllib
from pathlib import Path

from microjobs_orchestrator.aws.settings import Settings

TABLE = Path(__file__).with_name("prices.toml")


def load_prices(settings: Settings) -> dict[str, float]:
    """Return the dollars per hour in the settings' region, by instance type."""
    table: dict[str, dict[str, float]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {**table.get(settings.region, {}), **settings.prices}
