"""From received bytes to a validated operation."""
